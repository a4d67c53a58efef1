// What the drivers of the op table share: the arrangements of a case's inputs in memory, its output
// and gradients on a device, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

const std::vector<Row>& rows();

// Which layout each input of a case is given in.
struct Arrangement {
  std::string name;
  std::vector<Layout> layouts;
};
// All plain, channels_last, and on the CPU blocked.
std::vector<Arrangement> arrangements(const Row& row, const Case& c, Device device = {});
std::vector<Variable> variables(const Case& c, const Arrangement& a, DType dtype,
                                Device device = {});
// The case with inputs that dtype holds exactly.
Case rounded(Case c, DType dtype);

// Output and gradients of a case, as plain f64 on the CPU. The contraction of the output, whose
// gradient is taken, is the same for every dtype.
struct Result {
  Tensor y;
  std::vector<Tensor> grads;
};
Tensor contraction(const Shape& shape);
Result evaluate(const Case& c, const Arrangement& a, DType dtype, Device device = {});
// Of an output and inputs whose backward has run.
Result result_of(const Variable& y, const std::vector<Variable>& inputs);

// Every |got - want| within tolerance * the largest |want|.
void expect_close(const Tensor& got, const Tensor& want, double tolerance, const std::string& what);
void expect_close(const Result& got, const Result& want, double tolerance, const std::string& what);
void expect_same_bits(const Result& got, const Result& want, const std::string& what);

// A test name from a row's function.
std::string row_name(const ::testing::TestParamInfo<size_t>& parameter);

}  // namespace mtcki::op_table
