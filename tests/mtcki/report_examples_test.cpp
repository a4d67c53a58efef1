// What the report shows of the real sets: confusion matrices and nearest real images, from their
// computation through their files to the page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "mtcki/evaluation/confusion.h"
#include "mtcki/evaluation/neighbours.h"
#include "mtcki/report/confusion.h"
#include "mtcki/report/neighbours.h"
#include "mtcki/report/report.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class ReportExamples : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_examples_" + std::to_string(getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_ / "students/s");
    fs::create_directories(dir_ / "teachers/t");
    fs::create_directories(dir_ / "metrics");
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  fs::path dir_;
};

TEST(Confusion, CountsRowsByTrueClass) {
  const Tensor logits =
      Tensor::from(std::vector<float>{9, 0, 0, 0, 9, 0, 9, 0, 0, 1, 1, 0}, {4, 3});
  const ConfusionMatrix m =
      confusion_matrix(logits, Tensor::from(std::vector<int64_t>{0, 1, 1, 2}, {4}));
  EXPECT_EQ(m.classes(), 3);
  EXPECT_EQ(m.counts, (std::vector<int64_t>{1, 0, 0, 1, 1, 0, 1, 0, 0}));
  EXPECT_EQ(m.of_class(1), 2);
  EXPECT_EQ(m.total(), 4);
  EXPECT_EQ(m.correct(), 2);
  EXPECT_THROW(confusion_matrix(logits, Tensor::from(std::vector<int64_t>{0}, {1})), ShapeError);
  EXPECT_THROW(confusion_matrix(logits, Tensor::from(std::vector<int64_t>{0, 1, 2, 3}, {4})),
               ShapeError);
}

TEST_F(ReportExamples, ComparesStudentsWithTheSameNetworkOnRealImages) {
  ConfusionMatrix m;
  m.class_names = {"a", "<b>"};
  m.counts = {9, 1, 0, 10};
  write_confusion(path("teachers/t"), m);
  m.counts = {8, 2, 5, 5};
  write_confusion(path("students/s"), m);
  std::ofstream(path("metrics.jsonl")) << "";
  std::ofstream(path("result.json"))
      << R"({"teachers":[{"name":"u","model":"vgg8","top1":90},{"name":"t","model":"wrn","top1":95}],)"
      << R"("students":[{"name":"s","model":"vgg8","top1":65},{"name":"x","model":"other","top1":60}]})";
  fs::create_directories(dir_ / "synth");
  std::ofstream(path("synth/manifest.json")) << R"({"per_class":[5,5]})";
  const std::string html = report_html({dir_.string()});
  const std::string n = "</td><td class=\"n\">";
  EXPECT_THAT(html, HasSubstr("<td>s" + n + "<b>65.00</b>" + n + "90.00" + n +
                              "<span class=\"bad\">-25.00</span>" + n + "95.00" + n +
                              "<span class=\"bad\">-30.00</span>" + n + "50.00" + n + "vgg8"));
  EXPECT_THAT(html, HasSubstr("<td>x" + n + "<b>60.00</b>" + n + "–" + n + "–" + n + "95.00"));
  const std::string b =
      "<td>&lt;b&gt;" + n + "100.0" + n + "50.0" + n + "<span class=\"bad\">-50.0<";
  EXPECT_THAT(html, HasSubstr(b));
  EXPECT_LT(html.find(b), html.find("<td>a" + n + "90.0" + n + "80.0")) << "what lost most first";
}

TEST_F(ReportExamples, ConfusionFileReadsBackAndDamageIsIgnored) {
  ConfusionMatrix m;
  m.model = "vgg8";
  m.class_names = {"a", "b"};
  m.counts = {3, 1, 0, 4};
  m.config_sha256 = "f00";
  write_confusion(path("students/s"), m);
  const auto back = read_confusion(path("students/s"));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->counts, m.counts);
  EXPECT_EQ(back->class_names, m.class_names);
  EXPECT_EQ(back->config_sha256, "f00");
  EXPECT_FALSE(read_confusion(path("teachers/t")));
  for (const char* damaged :
       {"", "{", "[]",
        R"({"format_version":1,"model":"x","class_names":[],"counts":[1,2,3],)"
        R"("config_sha256":""})",
        R"({"format_version":1,"model":"x","class_names":["a"],"counts":[1,2,3,4],)"
        R"("config_sha256":""})",
        R"({"format_version":1,"model":"x","class_names":[],"counts":[1,-2,3,4],)"
        R"("config_sha256":""})"}) {
    std::ofstream(path("teachers/t/confusion.json")) << damaged;
    EXPECT_FALSE(read_confusion(path("teachers/t"))) << damaged;
  }
  EXPECT_THAT(confusion_section(dir_.string(), 100000), Not(HasSubstr("teacher t")));
}

TEST_F(ReportExamples, ConfusionIsATableOfPercentStudentsFirst) {
  ConfusionMatrix m;
  m.model = "vgg8";
  m.class_names = {"<cat>", "dog"};
  m.counts = {30, 10, 0, 50};
  write_confusion(path("students/s"), m);
  m.class_names.clear();
  write_confusion(path("teachers/t"), m);
  const std::string html = confusion_section(dir_.string(), 100000);
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">&lt;cat&gt;</th><td class=\"d\" "
                              "style=\"--a:0.87\">75</td><td class=\"x\" "
                              "style=\"--a:0.50\">25</td></tr>"));
  EXPECT_THAT(html, HasSubstr("<td></td><td class=\"d h\" style=\"--a:1.00\">100</td>"));
  EXPECT_THAT(html, HasSubstr("&lt;cat&gt; taken for dog (25.0 %)"));
  EXPECT_THAT(html, HasSubstr("88.89 % of 90 test images"));
  EXPECT_THAT(html, HasSubstr("0 taken for 1 (25.0 %)"));
  EXPECT_LT(html.find("student s"), html.find("teacher t"));
  EXPECT_THAT(confusion_section(dir_.string(), 800), HasSubstr("1 more are in the run folder"));
  EXPECT_EQ(confusion_section(dir_.string(), 10), "");
}

TEST_F(ReportExamples, ManyClassesBecomeAPicture) {
  ConfusionMatrix m;
  m.model = "vgg8";
  m.counts.assign(100 * 100, 0);
  for (int64_t k = 0; k < 100; ++k) m.counts[static_cast<size_t>(k * 101)] = 9;
  m.counts[7] = 3;  // 0 taken for 7
  write_confusion(path("students/s"), m);
  const std::string html = confusion_section(dir_.string(), 500000);
  EXPECT_THAT(html, Not(HasSubstr("<table")));
  EXPECT_THAT(html, HasSubstr("alt=\"Confusion matrix of student s: 100 classes, 99.67 % on the "
                              "diagonal\" src=\"data:image/png;base64,iVBOR"));
  EXPECT_THAT(html, HasSubstr("0 taken for 7 (25.0 %)"));
}

TEST(NearestRows, AgreesWithAllDistances) {
  const Tensor queries = randn({5, 12}, Rng{3, rng_stream("nearest"), 0});
  Tensor reference = randn({700, 12}, Rng{3, rng_stream("nearest"), 1});
  // Rows 10 and 20 are the same: the earlier one comes first.
  std::copy_n(reference.data<float>() + 10 * 12, 12, reference.data<float>() + 20 * 12);
  NearestRows nearest(queries, 4);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 300}, {300, 700}})
    nearest.add(reference.slice(begin, end));
  for (int64_t q = 0; q < 5; ++q) {
    std::vector<std::pair<double, int64_t>> all;
    for (int64_t r = 0; r < 700; ++r) {
      double sum = 0;
      for (int64_t d = 0; d < 12; ++d)
        sum += std::pow(
            double{queries.data<float>()[q * 12 + d]} - double{reference.data<float>()[r * 12 + d]},
            2);
      all.emplace_back(std::sqrt(sum), r);
    }
    std::sort(all.begin(), all.end());
    const auto& hits = nearest.hits()[static_cast<size_t>(q)];
    ASSERT_EQ(hits.size(), 4u);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(hits[i].row, all[i].second);
      EXPECT_DOUBLE_EQ(hits[i].distance, all[i].first);
    }
  }
  EXPECT_THROW(nearest.add(Tensor::zeros({2, 11})), ShapeError);
}

data::ImageSet image_set(int64_t n, uint64_t step) {
  data::ImageSet set;
  const Tensor noise = rand({n, 1, 4, 4}, Rng{5, rng_stream("images"), step});
  set.images = Tensor::empty({n, 1, 4, 4}, DType::u8);
  for (int64_t i = 0; i < noise.numel(); ++i)
    set.images.data<uint8_t>()[i] = static_cast<uint8_t>(255 * noise.data<float>()[i]);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(i % 3);
  set.labels = Tensor::from(labels, {n});
  set.class_names = {"x", "<y>", "z"};
  return set;
}

TEST_F(ReportExamples, CopiesOfTrainingImagesAreFoundAtDistanceZero) {
  const data::ImageSet train = image_set(1200, 0), test = image_set(30, 1);
  data::ImageSet synthetic = image_set(9, 2);
  // Image 0 (class x) is training image 777.
  std::copy_n(train.images.data<uint8_t>() + 777 * 16, 16, synthetic.images.data<uint8_t>());
  const NeighbourDisplay made = find_neighbours(synthetic, train, test, nullptr, 6, 2);
  ASSERT_EQ(made.size(), 6);
  EXPECT_EQ(made.count(), 2);
  EXPECT_EQ(made.labels, (std::vector<int64_t>{0, 1, 2, 0, 1, 2})) << "every class in turn";
  EXPECT_EQ(made.real_rows[0], 777);
  EXPECT_EQ(made.real_labels[0], 777 % 3);
  EXPECT_EQ(made.distances[0], 0);
  for (size_t i = 1; i < made.distances.size(); ++i) EXPECT_GT(made.distances[i], 0.01);
  EXPECT_GT(made.usual_distance, 0.1);

  write_neighbours(path("metrics/neighbours.safetensors"), made);
  const auto back = read_neighbours(path("metrics/neighbours.safetensors"));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->distances, made.distances);
  EXPECT_EQ(back->real_rows, made.real_rows);
  EXPECT_EQ(back->space, "pixels in [0,1]");
  EXPECT_EQ(back->images.to_vector<uint8_t>(), made.images.to_vector<uint8_t>());
  const std::string html = neighbours_section(dir_.string(), 100000);
  EXPECT_THAT(html, HasSubstr("alt=\"Real training image 777, x\""));
  EXPECT_THAT(html, HasSubstr("alt=\"Synthetic image, made as &lt;y&gt;\""));
  EXPECT_THAT(html, HasSubstr("Real data is used for this display only"));
  EXPECT_THAT(html, HasSubstr("the 2 most similar of 1200 real training images"));
  EXPECT_EQ(neighbours_section(dir_.string(), 10), "");

  std::ofstream(path("manifest.json")) << "{}";
  EXPECT_THAT(report_html({dir_.string()}), HasSubstr("<h2>Nearest real images</h2>"));
  std::ofstream(path("metrics/neighbours.safetensors")) << "damaged";
  EXPECT_FALSE(read_neighbours(path("metrics/neighbours.safetensors")));
  EXPECT_THAT(report_html({dir_.string()}), Not(HasSubstr("Nearest real images")));
}

TEST(NearestImages, FeaturesOfAClassifierAndSmallSets) {
  nn::Init init(0);
  const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 3};
  Teacher judge({"held-out", spec, {{0.5}, {0.25}}, 1.0, -1}, nn::make_classifier(spec, init));
  data::ImageSet train = image_set(3, 0);
  train.images = Tensor::zeros({3, 1, 28, 28}, DType::u8);
  for (int64_t i = 0; i < 3; ++i) train.images.slice(i, i + 1).fill_(static_cast<double>(100 * i));
  const NeighbourDisplay made = find_neighbours(train, train, train, &judge, 50, 5);
  EXPECT_EQ(made.size(), 3) << "no more than there are";
  EXPECT_EQ(made.count(), 3);
  for (int64_t s = 0; s < 3; ++s) EXPECT_EQ(made.real_rows[static_cast<size_t>(3 * s)], s);
  EXPECT_EQ(made.usual_distance, 0);
  EXPECT_EQ(made.space, "features of the held-out classifier (vgg8_w0.125)");
}

}  // namespace
}  // namespace mtcki
