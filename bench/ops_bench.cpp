// Every row of the op table (tests/op_table) on tensors of a CIFAR network: forward, and backward
// alone. Batch 128 unless MTCKI_BENCH_BATCH says otherwise.
//
//   ops_bench --benchmark_filter='^relu/'
#include <memory>

#include "bench_common.h"
#include "tests/op_table/op_table.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header

// On the device: activations in the dtype and layout that a network gives them there, parameters
// in f32.
std::vector<Variable> inputs_of(const op_table::Row& row, const op_table::Timed& timed,
                                DType dtype) {
  std::vector<Variable> inputs;
  for (size_t i = 0; i < timed.inputs.size(); ++i) {
    const bool weight = row.weights.count(i) > 0;
    Tensor t = timed.inputs[i].to(weight ? DType::f32 : dtype).to(bench::device());
    if (t.rank() == 4 && !weight) t = t.to(preferred_layout(bench::device(), dtype, t.size(1)));
    inputs.emplace_back(t, true);
  }
  return inputs;
}

bench::Case case_of(const op_table::Row& row, nn::Precision precision, bool backward) {
  const op_table::Timed timed = row.timed(bench::batch());
  const DType dtype = precision == nn::Precision::bf16 ? DType::bf16 : DType::f32;
  const auto inputs = std::make_shared<std::vector<Variable>>(inputs_of(row, timed, dtype));
  bench::Case c;
  c.precision = precision;
  c.captured = true;
  if (!backward) {
    c.work = [=] {
      const NoGradScope no_grad;
      timed.run(*inputs);
    };
    return c;
  }
  const auto y = std::make_shared<Variable>(timed.run(*inputs));
  const Tensor seed =
      Tensor::full(y->shape(), 1.0, y->data().dtype(), bench::device()).to(y->data().layout());
  c.prepare = [=] {
    for (Variable& v : *inputs) v.zero_grad();
    *y = timed.run(*inputs);
  };
  c.work = [=] { y->backward(seed); };
  return c;
}

void register_cases() {
  static const std::vector<op_table::Row> rows = op_table::all_rows();
  for (const nn::Precision precision : {nn::Precision::f32, nn::Precision::bf16})
    for (const op_table::Row& row : rows)
      for (const bool backward : {false, true})
        bench::add(
            str(row.function, "/", nn::name_of(precision), backward ? "/backward" : "/forward"),
            [&row, precision, backward] { return case_of(row, precision, backward); });
}

}  // namespace

int main(int argc, char** argv) { return bench::main(argc, argv, register_cases); }
