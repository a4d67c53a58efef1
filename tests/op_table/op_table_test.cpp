// Drivers over the op table (op_table.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "autograd/gradcheck.h"
#include "tensor/context.h"
#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"
#include "tensor/profiler.h"
#include "tests/op_table/op_table_driver.h"

namespace mtcki::op_table {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class OpTable : public ::testing::TestWithParam<size_t> {
 protected:
  const Row& row() const { return rows()[GetParam()]; }
  template <class F>
  void for_cases(const F& f) const {
    for (const Case& c : row().cases)
      for (const Arrangement& a : arrangements(row(), c)) {
        SCOPED_TRACE(row().function + ", " + c.name + ", " + a.name);
        f(c, a);
      }
  }
};

TEST_P(OpTable, Reference) {
  for_cases([](const Case& c, const Arrangement& a) {
    const Variable y = c.run(variables(c, a, DType::f64));
    expect_close(y.data().plain(), c.reference(c.inputs), 1e-11, "f64");
  });
}

// Thousands of tiny forwards: threads would only wait for each other.
struct OneThread {
  int before = num_threads();
  OneThread() { set_num_threads(1); }
  ~OneThread() { set_num_threads(before); }
};

TEST_P(OpTable, Gradcheck) {
  const OneThread one_thread;
  for_cases([](const Case& c, const Arrangement& a) {
    GradcheckOptions o;
    o.max_elements = 40;
    const GradcheckReport report = gradcheck(c.run, variables(c, a, DType::f64), o);
    EXPECT_TRUE(report.ok) << report.message;
  });
}

// With all other inputs frozen a gradient is the same to the last bit, and they get none.
TEST_P(OpTable, OneInputAtATime) {
  for_cases([](const Case& c, const Arrangement& a) {
    const Result all = evaluate(c, a, DType::f64);
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.inputs[i].defined()) continue;
      std::vector<Variable> in = variables(c, a, DType::f64);
      for (size_t j = 0; j < in.size(); ++j)
        if (j != i && in[j].defined()) in[j].set_requires_grad(false);
      const Variable y = c.run(in);
      y.backward(contraction(y.shape()).to(DType::f64).to(y.data().layout()));
      expect_close(in[i].grad().plain(), all.grads[i], 1e-15, str("alone, gradient ", i));
      for (size_t j = 0; j < in.size(); ++j)
        if (j != i) {
          EXPECT_FALSE(in[j].grad().defined());
        }
    }
  });
}

TEST_P(OpTable, SinglePrecision) {
  for_cases([&](const Case& c, const Arrangement& a) {
    const Result want = evaluate(c, a, DType::f64), got = evaluate(c, a, DType::f32);
    expect_close(got, want, row().tolerance, "f32");
    expect_same_bits(evaluate(c, a, DType::f32), got, "again");
  });
}

TEST_P(OpTable, HalfPrecision) {
  for_cases([&](const Case& full, const Arrangement& a) {
    const Case c = rounded(full, DType::bf16);
    expect_close(evaluate(c, a, DType::bf16), evaluate(c, a, DType::f64), row().bf16_tolerance,
                 "bf16");
  });
}

TEST_P(OpTable, KernelFamiliesAgree) {
  if (!row().products) return;  // one family only
  struct Restore {
    CpuKernels before = math_settings().cpu_kernels;
    ~Restore() { set_cpu_kernels(before); }
  } restore;
  for_cases([&](const Case& c, const Arrangement& a) {
    const Result want = evaluate(c, a, DType::f64);
    for (CpuKernels kernels : {CpuKernels::automatic, CpuKernels::builtin, CpuKernels::onednn}) {
      if (kernels == CpuKernels::onednn && !onednn_available()) continue;
      set_cpu_kernels(kernels);
      expect_close(evaluate(c, a, DType::f32), want, row().tolerance,
                   str("kernels ", static_cast<int>(kernels)));
    }
  });
}

TEST_P(OpTable, Errors) {
  ASSERT_FALSE(row().errors.empty()) << row().function << " has no error case";
  const ContextScope outer(ContextScope::Kind::module, "layer3");
  const ContextScope inner(ContextScope::Kind::module, "act");
  for (const ErrorCase& e : row().errors) {
    try {
      e.run();
      ADD_FAILURE() << row().function << ": expected an error with '" << e.texts[0] << "'";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_THAT(text, StartsWith(e.texts[0]));
      for (const std::string& part : e.texts) EXPECT_THAT(text, HasSubstr(part));
      EXPECT_THAT(text, HasSubstr("layer3.act")) << "the module path is missing";
    }
  }
}

TEST_P(OpTable, Flops) {
  const std::string event = row().event.empty() ? row().function : row().event;
  for (const Case& c : row().cases) {
    const std::vector<Variable> in =
        variables(c, {"", std::vector<Layout>(c.inputs.size(), Layout::plain)}, DType::f64);
    profiler::start();
    const Variable y = c.run(in);
    profiler::stop();
    double flops = 0;
    bool found = false;
    for (const auto& e : profiler::events()) {
      if (e.op != event) continue;
      found = true;
      flops += e.flops;
      EXPECT_TRUE(e.bytes > 0 || y.numel() == 0) << row().function;
    }
    EXPECT_TRUE(found || event == "none")
        << row().function << ", " << c.name << ": no scope " << event;
    EXPECT_DOUBLE_EQ(flops, c.flops) << row().function << ", " << c.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpTable, ::testing::Range<size_t>(0, rows().size()), row_name);

// Every `Variable name(` of functions.h, overloads with a number marked.
std::set<std::string> declared_functions() {
  std::ifstream file(std::string(MTCKI_SOURCE_DIR) + "/autograd/functions.h");
  EXPECT_TRUE(file.good());
  std::stringstream buffer;
  buffer << file.rdbuf();
  const std::string text = buffer.str();
  const std::regex declaration("(?:^|\\n)Variable ([a-z_0-9]+)\\(([^;]*)\\);");
  std::set<std::string> names;
  for (std::sregex_iterator i(text.begin(), text.end(), declaration), end; i != end; ++i) {
    const std::string arguments = (*i)[2];
    const bool number = arguments == "const Variable& a, double s";
    names.insert((*i)[1].str() + (number ? "_scalar" : ""));
  }
  return names;
}

TEST(OpTableCoverage, EveryDifferentiableFunctionHasARow) {
  const std::set<std::string> declared = declared_functions();
  ASSERT_GE(declared.size(), 45u) << "autograd/functions.h was not read as expected";
  std::set<std::string> listed;
  for (const Row& row : rows()) {
    EXPECT_TRUE(listed.insert(row.function).second) << row.function << " has two rows";
    EXPECT_TRUE(declared.count(row.function)) << row.function << " is no function";
    EXPECT_FALSE(row.cases.empty()) << row.function;
    EXPECT_TRUE(row.timed) << row.function << " has nothing for ops_bench to time";
  }
  for (const std::string& name : declared)
    EXPECT_TRUE(listed.count(name))
        << name << " of autograd/functions.h has no row in the op table";
}

}  // namespace
}  // namespace mtcki::op_table
