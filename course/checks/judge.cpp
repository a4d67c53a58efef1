// The program that judges exercises, or their solutions:  course_NN [NUMBER] [--full] [--or-open]
// Exit code 0: all is right; 1: something is wrong; 3: a hole is still open (0 with --or-open).
#include "course/checks/judge.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>

#include "tensor/error.h"

namespace mtcki::course {

namespace {

struct Entry {
  const char* title;
  void (*check)(Judge&);
};
std::map<int, Entry>& chapters() {
  static std::map<int, Entry> all;
  return all;
}

struct OpenHole {
  const char* what;
};

int judge(int number, const Entry& entry, bool full, bool or_open) {
  std::printf("Chapter %d: %s\n", number, entry.title);
  Judge judge(full);
  try {
    entry.check(judge);
  } catch (const OpenHole& h) {
    std::printf("The hole is still open: %s\n", h.what);
    return or_open ? 0 : 3;
  } catch (const std::exception& e) {
    std::printf("WRONG  stopped by an error: %s\n", e.what());
    return 1;
  }
  if (judge.wrong() > 0)
    std::printf("%d wrong.\n", judge.wrong());
  else
    std::printf("All right.\n");
  return judge.wrong() > 0 ? 1 : 0;
}

}  // namespace

void hole(const char* what) { throw OpenHole{what}; }

Chapter::Chapter(int number, const char* title, void (*check)(Judge&)) {
  chapters()[number] = {title, check};
}

void Judge::check(const std::string& what, bool right, const std::string& detail) {
  if (right) {
    std::printf("right  %s\n", what.c_str());
    return;
  }
  ++wrong_;
  std::printf("WRONG  %s%s%s\n", what.c_str(), detail.empty() ? "" : ": ", detail.c_str());
}

void Judge::equal(const std::string& what, double got, double wanted, double tolerance) {
  char detail[80];
  std::snprintf(detail, sizeof detail, "got %.6g, expected %.6g", got, wanted);
  check(what, std::abs(got - wanted) <= tolerance * std::max(1.0, std::abs(wanted)), detail);
}

void Judge::close(const std::string& what, const Tensor& got, const Tensor& wanted,
                  double tolerance) {
  if (!got.defined() || got.shape() != wanted.shape()) {
    check(what, false,
          "shape " + (got.defined() ? got.shape().to_string() : "of no tensor") + ", expected " +
              wanted.shape().to_string());
    return;
  }
  const std::vector<double> a = got.to_vector<double>(), b = wanted.to_vector<double>();
  double largest = 1;
  for (const double v : b) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b[i]) <= tolerance * largest)) {
      char detail[80];
      std::snprintf(detail, sizeof detail, "element %zu is %.6g, expected %.6g", i, a[i], b[i]);
      check(what, false, detail);
      return;
    }
  check(what, true);
}

int main_of(int argc, char** argv) {
  bool full = false, or_open = false;
  int only = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--full") == 0) {
      full = true;
    } else if (std::strcmp(argv[i], "--or-open") == 0) {
      or_open = true;
    } else if (only = std::atoi(argv[i]); !chapters().count(only)) {
      std::fprintf(stderr, "error: %s: no such chapter or flag here\n", argv[i]);
      return 2;
    }
  }
  int code = 0;
  for (const auto& [number, entry] : chapters())
    if (only == 0 || only == number) code = std::max(code, judge(number, entry, full, or_open));
  return code;
}

}  // namespace mtcki::course

int main(int argc, char** argv) { return mtcki::course::main_of(argc, argv); }
