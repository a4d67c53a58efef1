// Reductions and the ops that move values.
#include <cmath>

#include "tensor/rng.h"
#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

using In = const std::vector<Variable>&;
using Ref = const std::vector<Tensor>&;

bool is_reduced(const std::vector<int>& dims, int d, int rank) {
  if (dims.empty()) return true;
  for (int r : dims)
    if ((r < 0 ? r + rank : r) == d) return true;
  return false;
}

// Sum over dims, or mean.
Tensor reduced(const Tensor& x, const std::vector<int>& dims, bool keepdim, bool average) {
  Shape shape;
  double elements = 1;
  for (int d = 0; d < x.rank(); ++d) {
    if (!is_reduced(dims, d, x.rank())) {
      shape.push_back(x.size(d));
    } else {
      if (keepdim) shape.push_back(1);
      elements *= static_cast<double>(x.size(d));
    }
  }
  Tensor y = Tensor::zeros(shape, DType::f64);
  for_each_index(x.shape(), [&](const Index& i) {
    int64_t offset = 0;
    for (int d = 0; d < x.rank(); ++d)
      if (!is_reduced(dims, d, x.rank())) offset = offset * x.size(d) + i[static_cast<size_t>(d)];
    y.data<double>()[offset] += at(x, i) / (average ? elements : 1);
  });
  return y;
}

Row reduction(const std::string& name, bool average) {
  Row row;
  row.function = name;
  struct Option {
    Shape shape;
    std::vector<int> dims;
    bool keepdim;
  };
  for (const Option& o :
       {Option{{}, {}, false}, Option{{5, 7}, {}, false}, Option{{5, 7}, {0}, false},
        Option{{5, 7}, {-1}, true}, Option{{3, 4, 5}, {0, 2}, false},
        Option{{2, kC, 3, 4}, {}, false}, Option{{2, kC, 3, 4}, {2, 3}, false},
        Option{{2, kC, 3, 4}, {0, 2, 3}, true}, Option{{2, kC, 3, 4}, {1}, false},
        Option{{600, 20}, {0}, false}}) {
    Case c;
    c.name = str(o.shape, " over ", o.dims.size(), " dims", o.keepdim ? ", kept" : "");
    c.inputs = {noise(o.shape)};
    c.run = [o, average](In in) {
      return average ? mean(in[0], o.dims, o.keepdim) : sum(in[0], o.dims, o.keepdim);
    };
    c.reference = [o, average](Ref in) { return reduced(in[0], o.dims, o.keepdim, average); };
    c.flops = count(o.shape);
    row.cases.push_back(c);
  }
  row.errors = {{[average] {
                   const Variable x(Tensor::zeros({2, 3}));
                   average ? mean(x, {2}) : sum(x, {2});
                 },
                 {name + ": ", "dimension 2", "rank 2", "[2, 3] f32 cpu"}}};
  row.timed = [average](int64_t n) {
    return Timed{{noise(activations(n))}, [average](In in) {
                   return average ? mean(in[0], {2, 3}) : sum(in[0]);
                 }};
  };
  return row;
}

Case moving(const std::string& name, std::vector<Tensor> inputs, Function run,
            Reference reference) {
  return {name, std::move(inputs), std::move(run), std::move(reference), 0};
}

// Row::timed of one input.
std::function<Timed(int64_t)> moves(Shape (*shape)(int64_t), const Function& run) {
  return [=](int64_t n) { return Timed{{noise(shape(n))}, run}; };
}

Tensor same_values(const Tensor& x, const Shape& shape) { return x.clone().reshape(shape); }

Row cat_row() {
  Row row;
  row.function = "cat";
  const auto add = [&row](const std::string& name, int dim, const std::vector<Shape>& shapes) {
    std::vector<Tensor> inputs;
    for (const Shape& s : shapes) inputs.push_back(noise(s, inputs.size() + 1));
    row.cases.push_back(moving(
        name, inputs, [dim](In in) { return cat(in, dim); },
        [dim](Ref in) {
          const int rank = in[0].rank(), d = dim < 0 ? dim + rank : dim;
          Shape shape = in[0].shape();
          for (size_t i = 1; i < in.size(); ++i) shape.set(d, shape[d] + in[i].size(d));
          return fill(shape, [&](Index i) {
            size_t part = 0;
            int64_t& at_d = i[static_cast<size_t>(d)];
            while (at_d >= in[part].size(d)) at_d -= in[part++].size(d);
            return at(in[part], i);
          });
        }));
  };
  add("rows", 0, {{2, 3}, {1, 3}, {4, 3}});
  add("columns", -1, {{2, 3}, {2, 5}});
  add("images", 0, {{2, kC, 2, 3}, {1, kC, 2, 3}});
  add("channels", 1, {{2, kC, 2, 3}, {2, 2 * kC, 2, 3}, {2, 3, 2, 3}});
  add("one part", 0, {{2, 3}});
  row.errors = {{[] {
                   cat({Tensor::zeros({2, 3}), Tensor::zeros({2, 4})}, 0);
                 },
                 {"cat: ", "dimension 0", "[2, 3] f32 cpu", "[2, 4] f32 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(activations(n), 1), noise(activations(n), 2)},
                 [](In in) { return cat(in, 1); }};
  };
  return row;
}

Row narrow_row() {
  Row row;
  row.function = "narrow";
  const auto add = [&row](const Shape& shape, int dim, int64_t begin, int64_t end) {
    row.cases.push_back(moving(
        str(shape, " dim ", dim), {noise(shape)},
        [=](In in) { return narrow(in[0], dim, begin, end); },
        [=](Ref in) {
          Shape out = in[0].shape();
          out.set(dim, end - begin);
          const size_t d = static_cast<size_t>(dim < 0 ? dim + out.rank() : dim);
          // A copy: the part may have size 1, which at() would read as broadcast.
          const std::vector<double> values = in[0].to_vector<double>();
          return fill(out, [&](const Index& i) {
            int64_t offset = 0;
            for (size_t k = 0; k < i.size(); ++k)
              offset = offset * in[0].size(static_cast<int>(k)) + i[k] + (k == d ? begin : 0);
            return values[static_cast<size_t>(offset)];
          });
        }));
  };
  add({5, 3}, 0, 1, 4);
  add({5, 3}, -1, 2, 3);
  add({3, 2 * kC, 2, 3}, 0, 1, 3);
  add({3, 2 * kC, 2, 3}, 1, kC, 2 * kC);
  add({3, 2 * kC, 2, 3}, 3, 0, 2);
  row.errors = {{[] {
                   narrow(Tensor::zeros({2, 3}), 1, 1, 4);
                 },
                 {"narrow: ", "[1, 4)", "dimension 1", "[2, 3] f32 cpu"}}};
  row.timed = moves(activations, [](In in) { return narrow(in[0], 1, 16, 48); });
  return row;
}

Row subsample_row() {
  Row row;
  row.function = "subsample_pad_channels";
  const auto add = [&row](const Shape& shape, int64_t stride, int64_t before, int64_t after) {
    row.cases.push_back(moving(
        str(shape, " stride ", stride), {noise(shape)},
        [=](In in) { return subsample_pad_channels(in[0], stride, before, after); },
        [=](Ref in) {
          const Shape& s = in[0].shape();
          const Shape out{s[0], before + s[1] + after, (s[2] + stride - 1) / stride,
                          (s[3] + stride - 1) / stride};
          return fill(out, [&](const Index& i) {
            const int64_t c = i[1] - before;
            if (c < 0 || c >= s[1]) return 0.0;
            return at(in[0], {i[0], c, i[2] * stride, i[3] * stride});
          });
        }));
  };
  add({2, kC, 6, 6}, 2, kC / 2, kC / 2);
  add({2, 3, 5, 4}, 2, 1, 2);
  add({2, kC, 3, 3}, 1, 0, kC);
  row.errors = {{[] {
                   subsample_pad_channels(Tensor::zeros({2, 3, 4, 4}), 0, 1, 1);
                 },
                 {"subsample_pad_channels: ", "stride >= 1", "[2, 3, 4, 4] f32 cpu"}}};
  row.timed = moves(activations, [](In in) { return subsample_pad_channels(in[0], 2, 32, 32); });
  return row;
}

}  // namespace

std::vector<Row> shape_rows() {
  std::vector<Row> rows{reduction("sum", false), reduction("mean", true)};

  Row norm_row;
  norm_row.function = "norm";
  for (const Shape& shape : {Shape{4}, Shape{3, 40}, Shape{2, kC, 3, 3}})
    norm_row.cases.push_back({shape.to_string(),
                              {noise(shape)},
                              [](In in) { return norm(in[0]); },
                              [](Ref in) {
                                double squares = 0;
                                for (double v : in[0].to_vector<double>()) squares += v * v;
                                return Tensor::scalar(std::sqrt(squares), DType::f64);
                              },
                              2 * count(shape)});
  norm_row.errors = {
      {[] { norm(Tensor::zeros({2}, DType::i32)); }, {"norm: ", "floating dtype", "[2] i32 cpu"}}};
  norm_row.timed = moves(activations, norm_row.cases[0].run);
  rows.push_back(norm_row);

  Row layout_row;
  layout_row.function = "to_layout";
  layout_row.event = "none";
  layout_row.cases = {moving(
      "to channels_last", {noise({2, kC, 2, 3})},
      [](In in) { return to_layout(in[0], Layout::channels_last); },
      [](Ref in) {
        return same_values(in[0], {2, kC, 2, 3});
      })};
  layout_row.errors = {{[] {
                          to_layout(Tensor::zeros({2, 3}), Layout::channels_last);
                        },
                        {"to_layout", "[2, 3]"}}};
  layout_row.timed = moves(activations, layout_row.cases[0].run);
  rows.push_back(layout_row);

  Row reshape_row;
  reshape_row.function = "reshape";
  reshape_row.event = "none";
  reshape_row.cases = {moving(
                           "to matrix", {noise({2, kC, 2, 3})},
                           [](In in) {
                             return reshape(in[0], {2, 6 * kC});
                           },
                           [](Ref in) {
                             return same_values(in[0], {2, 6 * kC});
                           }),
                       moving(
                           "inferred", {noise({4, 6})},
                           [](In in) {
                             return reshape(in[0], {2, -1, 3});
                           },
                           [](Ref in) {
                             return same_values(in[0], {2, 4, 3});
                           }),
                       moving(
                           "to scalar", {noise({1, 1})}, [](In in) { return reshape(in[0], {}); },
                           [](Ref in) { return same_values(in[0], {}); })};
  reshape_row.errors = {{[] {
                           reshape(Tensor::zeros({2, 3}), {4, 2});
                         },
                         {"reshape: ", "[2, 3]", "[4, 2]"}}};
  reshape_row.timed = moves(features, [](In in) { return reshape(in[0], {-1, 8, 64}); });
  rows.push_back(reshape_row);

  Row flatten_row;
  flatten_row.function = "flatten";
  flatten_row.event = "none";
  flatten_row.cases = {moving(
                           "image", {noise({2, kC, 2, 3})}, [](In in) { return flatten(in[0]); },
                           [](Ref in) {
                             return same_values(in[0], {2, 6 * kC});
                           }),
                       moving(
                           "vector", {noise({5})}, [](In in) { return flatten(in[0]); },
                           [](Ref in) {
                             return same_values(in[0], {5, 1});
                           })};
  flatten_row.errors = {{[] { flatten(Tensor::zeros({})); }, {"flatten: ", "[] f32 cpu"}}};
  flatten_row.timed = moves(activations, flatten_row.cases[0].run);
  rows.push_back(flatten_row);

  rows.push_back(cat_row());
  rows.push_back(narrow_row());

  Row select;
  select.function = "index_select";
  for (const Shape& shape : {Shape{4, 3}, Shape{4, kC, 2, 2}, Shape{4}})
    select.cases.push_back(moving(
        shape.to_string(), {noise(shape)},
        [](In in) {
          return index_select(in[0], constant(Tensor::from<int64_t>({3, 0, 3, 1, 3}, {5}), in[0]));
        },
        [](Ref in) {
          Shape out = in[0].shape();
          out.set(0, 5);
          return fill(out, [&](Index i) {
            i[0] = std::vector<int64_t>{3, 0, 3, 1, 3}[static_cast<size_t>(i[0])];
            return at(in[0], i);
          });
        }));
  select.errors = {{[] {
                      index_select(Tensor::zeros({2, 3}), Tensor::from<int64_t>({2}, {1}));
                    },
                    {"index_select: ", "index 2 at position 0", "0..1", "[2, 3] f32 cpu"}}};
  select.timed = [](int64_t n) {
    const Tensor order = randperm(n, Rng{11, rng_stream("op_table"), 1});
    return Timed{{noise(features(n))},
                 [=](In in) { return index_select(in[0], constant(order, in[0])); }};
  };
  rows.push_back(select);

  Row transposed;
  transposed.function = "transpose";
  transposed.event = "permute";
  transposed.cases = {moving(
      "matrix", {noise({3, 5})}, [](In in) { return transpose(in[0]); },
      [](Ref in) {
        return fill({5, 3}, [&](const Index& i) { return at(in[0], {i[1], i[0]}); });
      })};
  transposed.errors = {{[] {
                          transpose(Tensor::zeros({2, 3, 4}));
                        },
                        {"transpose: ", "rank 2", "[2, 3, 4] f32 cpu"}}};
  transposed.timed = moves(features, transposed.cases[0].run);
  rows.push_back(transposed);

  Row permuted;
  permuted.function = "permute";
  permuted.cases = {moving(
                        "images", {noise({2, kC, 3, 5})},
                        [](In in) {
                          return permute(in[0], {3, 0, 1, 2});
                        },
                        [](Ref in) {
                          return fill({5, 2, kC, 3}, [&](const Index& i) {
                            return at(in[0], {i[1], i[2], i[3], i[0]});
                          });
                        }),
                    moving(
                        "five dimensions", {noise({2, 3, 2, 1, 4})},
                        [](In in) {
                          return permute(in[0], {0, 2, 1, 3, 4});
                        },
                        [](Ref in) {
                          return fill({2, 2, 3, 1, 4}, [&](const Index& i) {
                            return at(in[0], {i[0], i[2], i[1], i[3], i[4]});
                          });
                        })};
  permuted.errors = {{[] {
                        permute(Tensor::zeros({2, 3}), {0, 0});
                      },
                      {"permute: ", "exactly once", "[2, 3] f32 cpu"}}};
  permuted.timed = moves(activations, [](In in) { return permute(in[0], {0, 2, 3, 1}); });
  rows.push_back(permuted);

  Row shuffled;
  shuffled.function = "channel_shuffle";
  for (const auto& [shape, groups] :
       {std::pair<Shape, int64_t>{{2, 2 * kC, 2, 3}, 2}, {{1, 12, 3, 2}, 3}, {{2, 6, 2, 2}, 1}})
    shuffled.cases.push_back(moving(
        str(shape, " groups ", groups), {noise(shape)},
        [groups = groups](In in) { return channel_shuffle(in[0], groups); },
        [groups = groups](Ref in) {
          const int64_t each = in[0].size(1) / groups;
          return fill(in[0].shape(), [&](const Index& i) {
            return at(in[0], {i[0], i[1] % groups * each + i[1] / groups, i[2], i[3]});
          });
        }));
  shuffled.errors = {{[] {
                        channel_shuffle(Tensor::zeros({2, 6, 2, 2}), 4);
                      },
                      {"channel_shuffle: ", "4 groups", "[2, 6, 2, 2] f32 cpu"}}};
  shuffled.timed = moves(activations, [](In in) { return channel_shuffle(in[0], 4); });
  rows.push_back(shuffled);

  rows.push_back(subsample_row());

  Row cast_row;
  cast_row.function = "cast";
  cast_row.event = "none";  // nothing to do for f64
  for (const Shape& shape : {Shape{3, 4}, Shape{2, kC, 2, 2}})
    cast_row.cases.push_back(moving(
        shape.to_string(), {noise(shape)}, [](In in) { return cast(in[0], DType::f64); },
        [](Ref in) { return in[0]; }));
  cast_row.errors = {{[] { cast(Variable(Tensor::zeros({2}), true), DType::i64); },
                      {"cast: ", "i64", "[2] f32 cpu"}}};
  cast_row.timed = moves(activations, [](In in) {
    return cast(in[0], in[0].data().dtype() == DType::f32 ? DType::bf16 : DType::f32);
  });
  rows.push_back(cast_row);
  return rows;
}

}  // namespace mtcki::op_table
