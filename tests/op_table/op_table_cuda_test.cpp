// The op table on the GPU: every row in f64, f32 and bf16, plain and channels_last, with its
// gradients, against the references and the CPU; the same bits every time, eager and captured.
#include <map>

#include "tensor/allocator.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/op_table/op_table_driver.h"

namespace mtcki::op_table {
namespace {

using testing::kGpu;

class OpTableCuda : public testing::CudaTest, public ::testing::WithParamInterface<size_t> {
 protected:
  const Row& row() const { return rows()[GetParam()]; }
  template <class F>
  void for_cases(const F& f) const {
    for (const Case& c : row().cases)
      for (const Arrangement& a : arrangements(row(), c, kGpu)) {
        SCOPED_TRACE(row().function + ", " + c.name + ", " + a.name);
        f(c, a);
        if (HasFatalFailure()) return;
      }
  }
};

TEST_P(OpTableCuda, DoublePrecision) {
  for_cases([](const Case& c, const Arrangement& a) {
    const Result got = evaluate(c, a, DType::f64, kGpu);
    expect_close(got.y, c.reference(c.inputs), 1e-11, "f64 against the formula");
    expect_close(got, evaluate(c, a, DType::f64), 1e-11, "f64 against the CPU");
  });
}

// The first run is in fresh memory (the emulated device fills it with NaN), later ones in what the
// earlier ones left.
TEST_P(OpTableCuda, SinglePrecisionThreeTimes) {
  for_cases([&](const Case& c, const Arrangement& a) {
    release_cached_memory(kGpu);
    const Result got = evaluate(c, a, DType::f32, kGpu);
    expect_close(got, evaluate(c, a, DType::f64), std::max(1e-5, row().tolerance), "f32");
    for (int i = 0; i < 2; ++i) expect_same_bits(evaluate(c, a, DType::f32, kGpu), got, "again");
  });
}

TEST_P(OpTableCuda, HalfPrecisionThreeTimes) {
  for_cases([&](const Case& full, const Arrangement& a) {
    const Case c = rounded(full, DType::bf16);
    release_cached_memory(kGpu);
    const Result got = evaluate(c, a, DType::bf16, kGpu);
    expect_close(got, evaluate(c, a, DType::f64), row().bf16_tolerance, "bf16");
    for (int i = 0; i < 2; ++i) expect_same_bits(evaluate(c, a, DType::bf16, kGpu), got, "again");
  });
}

// What a captured step does: one pass as usual, with the same parameters, then the capture.
struct Captured {
  std::vector<Variable> inputs;
  Variable y;
  cuda::Graph graph;

  Captured(const Case& c, const Arrangement& a, DType dtype)
      : inputs(variables(c, a, dtype, kGpu)) {
    run(c);  // a graph may ask the driver for nothing
    y = {};
    for (Variable& v : inputs)
      if (v.defined()) v.zero_grad();
    graph.begin();
    try {
      run(c);
      graph.end();
    } catch (...) {
      graph.abandon();
      throw;
    }
  }
  void run(const Case& c) {
    y = c.run(inputs);
    y.backward(constant(contraction(y.shape()).to(y.data().dtype()), y).to(y.data().layout()));
  }
  Result replay() const {
    graph.launch();
    return result_of(y, inputs);
  }
};

// Forward and backward as one graph, replayed with the inputs it was captured with and with others.
TEST_P(OpTableCuda, CapturedEqualsEager) {
  const int pool = new_device_pool();
  for_cases([&](const Case& full, const Arrangement& a) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Case c = rounded(full, dtype);
      Case halved = c;
      for (Tensor& t : halved.inputs)
        if (t.defined()) t = mul(t, 0.5);
      const Result want = evaluate(c, a, dtype, kGpu);
      const Result want_halved = evaluate(halved, a, dtype, kGpu);
      const DevicePoolScope memory(pool);
      try {
        const Captured step(c, a, dtype);
        for (int i = 0; i < 2; ++i) expect_same_bits(step.replay(), want, "replay");
        for (const Variable& v : step.inputs)
          if (v.defined()) mul_(v.data(), 0.5);
        expect_same_bits(step.replay(), want_halved, "replay with other values");
      } catch (const CaptureError& e) {
        ADD_FAILURE() << "it cannot be captured: " << e.what();
      }
    }
  });
  release_device_pool(pool);
}

INSTANTIATE_TEST_SUITE_P(All, OpTableCuda, ::testing::Range<size_t>(0, rows().size()), row_name);

}  // namespace
}  // namespace mtcki::op_table
