// oneDNN behind the kernels' contract. The only file that knows oneDNN, and its 2.x and 3.x APIs.
// Primitives are made once per problem, direction and thread count; scratch comes from our
// allocator.
#include "tensor/error.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/ops/gemm.h"

#ifdef MTCKI_WITH_ONEDNN

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "tensor/parallel.h"

namespace mtcki {

namespace {

using dnnl::memory;

dnnl::engine& engine() {
  static dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}
dnnl::stream& stream() {
  thread_local dnnl::stream s(engine());
  return s;
}

using Type = memory::data_type;

bool is_channels_last(Type type) { return type == Type::bf16 && bf16_channels_last(); }

// In the layout of preferred_layout().
memory::desc activation(Type type, int64_t n, int64_t c, int64_t h, int64_t w) {
  const auto tag = is_channels_last(type) ? memory::format_tag::nhwc
                   : !is_blocked(c)       ? memory::format_tag::nchw
                   : kChannelBlock == 16  ? memory::format_tag::nChw16c
                                          : memory::format_tag::nChw8c;
  return {{n, c, h, w}, type, tag};
}
memory::desc any(Type type, const memory::dims& dims) {
  return {dims, type, memory::format_tag::any};
}

// A tensor in our memory layout, and the layout in which the primitive wants it.
struct Operand {
  memory::desc ours, theirs;
  dnnl::reorder reorder;  // undefined when both are equal
  bool output = false;

  void prepare(bool is_output) {
    output = is_output;
    if (ours == theirs) return;
    const auto& from = output ? theirs : ours;
    const auto& to = output ? ours : theirs;
    reorder = dnnl::reorder(dnnl::reorder::primitive_desc(engine(), from, engine(), to));
  }
  bool same() const { return ours == theirs; }
};

struct Convolution {
  dnnl::primitive primitive;
  memory::desc scratch;
  Operand x, w, y;
  memory::desc bias;
  bool slow = false;  // oneDNN has only its plain reference loops for this one

  void run(ConvPass pass, void* x_data, void* w_data, const float* bias_data, void* y_data) {
    const bool forward = pass == ConvPass::forward, weight = pass == ConvPass::grad_weight;
    std::unordered_map<int, memory> arguments;
    std::vector<std::unique_ptr<Scratch>> buffers;
    const auto bind = [&](int argument, const Operand& o, void* data) {
      memory mine(o.ours, engine(), data);
      if (o.same()) {
        arguments.emplace(argument, mine);
        return;
      }
      buffers.push_back(std::make_unique<Scratch>(o.theirs.get_size()));
      memory theirs(o.theirs, engine(), buffers.back()->as<void>());
      if (!o.output) o.reorder.execute(stream(), mine, theirs);
      arguments.emplace(argument, theirs);
    };
    const int x_arg = forward || weight ? DNNL_ARG_SRC : DNNL_ARG_DIFF_SRC;
    const int w_arg = weight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS;
    const int y_arg = forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST;
    bind(x_arg, x, x_data);
    bind(w_arg, w, w_data);
    bind(y_arg, y, y_data);
    if (bias_data)
      arguments.emplace(DNNL_ARG_BIAS, memory(bias, engine(), const_cast<float*>(bias_data)));
    Scratch work(scratch.get_size());
    arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(scratch, engine(), work.as<void>()));
    primitive.execute(stream(), arguments);
    const auto finish = [&](int argument, const Operand& o, void* data) {
      if (o.same() || !o.output) return;
      memory mine(o.ours, engine(), data);
      o.reorder.execute(stream(), arguments.at(argument), mine);
    };
    finish(x_arg, x, x_data);
    finish(w_arg, w, w_data);
    finish(y_arg, y, y_data);
    stream().wait();
  }
};

template <class Description>
bool is_reference(const Description& d) {
  return std::string(d.impl_info_str()).rfind("ref", 0) == 0;
}

// type: of the activations. Weights, their gradient and the bias are f32 on our side; where the
// kernel reads bf16 weights, the reorder rounds them. relu: of a forward's result.
std::unique_ptr<Convolution> make(Type type, const ConvProblem& d, ConvPass pass, bool has_bias,
                                  bool relu) {
  auto out = std::make_unique<Convolution>();
  const bool last = is_channels_last(type);
  out->x.ours = activation(type, d.n, d.c, d.h, d.w);
  out->y.ours = activation(type, d.n, d.k, d.p, d.q);
  out->w.ours = {{d.k, d.c, d.r, d.s}, Type::f32, memory::format_tag::oihw};
  out->bias = has_bias ? memory::desc({d.k}, Type::f32, memory::format_tag::a) : memory::desc();
  // Images (few channels) have kernels of their own; other plain tensors are better reordered.
  const memory::desc x = last || is_blocked(d.c) || (d.c <= 3 && pass != ConvPass::grad_input)
                             ? out->x.ours
                             : any(type, {d.n, d.c, d.h, d.w});
  const memory::desc y = last || is_blocked(d.k) ? out->y.ours : any(type, {d.n, d.k, d.p, d.q});
  const memory::desc w = any(type, {d.k, d.c, d.r, d.s});  // of the forward that backward names
  const memory::desc gw = any(Type::f32, {d.k, d.c, d.r, d.s});
  const memory::dims stride{d.stride_h, d.stride_w}, dilation{d.dil_h - 1, d.dil_w - 1};
  const memory::dims pad{d.pad_h, d.pad_w};
  // What the last output reads beyond the image, which may be less than the padding.
  const memory::dims pad_end{(d.p - 1) * d.stride_h + d.dil_h * (d.r - 1) + 1 - d.h - d.pad_h,
                             (d.q - 1) * d.stride_w + d.dil_w * (d.s - 1) + 1 - d.w - d.pad_w};
  const auto algorithm = dnnl::algorithm::convolution_direct;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (relu) {
    dnnl::post_ops ops;
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#else
    ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
    attr.set_post_ops(ops);
  }

#if DNNL_VERSION_MAJOR >= 3
  const dnnl::convolution_forward::primitive_desc forward(
      engine(), dnnl::prop_kind::forward_training, algorithm, x, w, out->bias, y, stride, dilation,
      pad, pad_end, attr);
#else
  const dnnl::convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, algorithm, x, w, out->bias, y, stride, dilation, pad,
       pad_end},
      attr, engine());
#endif
  const auto take = [&](const dnnl::primitive& primitive, const auto& description,
                        const memory::desc& x_desc, const memory::desc& w_desc,
                        const memory::desc& y_desc) {
    out->primitive = primitive;
    out->x.theirs = x_desc;
    out->w.theirs = w_desc;
    out->y.theirs = y_desc;
    out->scratch = description.scratchpad_desc();
    out->slow = is_reference(description);
  };
  if (pass == ConvPass::forward) {
    take(dnnl::convolution_forward(forward), forward, forward.src_desc(), forward.weights_desc(),
         forward.dst_desc());
  } else if (pass == ConvPass::grad_input) {
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::convolution_backward_data::primitive_desc backward(
        engine(), algorithm, x, w, y, stride, dilation, pad, pad_end, forward, attr);
#else
    const dnnl::convolution_backward_data::primitive_desc backward(
        {algorithm, x, w, y, stride, dilation, pad, pad_end}, attr, engine(), forward);
#endif
    take(dnnl::convolution_backward_data(backward), backward, backward.diff_src_desc(),
         backward.weights_desc(), backward.diff_dst_desc());
  } else {
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::convolution_backward_weights::primitive_desc backward(
        engine(), algorithm, x, gw, y, stride, dilation, pad, pad_end, forward, attr);
#else
    const dnnl::convolution_backward_weights::primitive_desc backward(
        {algorithm, x, gw, y, stride, dilation, pad, pad_end}, attr, engine(), forward);
#endif
    take(dnnl::convolution_backward_weights(backward), backward, backward.src_desc(),
         backward.diff_weights_desc(), backward.diff_dst_desc());
  }
  out->x.prepare(pass == ConvPass::grad_input);
  out->w.prepare(pass == ConvPass::grad_weight);
  out->y.prepare(pass == ConvPass::forward);
  return out;
}

Convolution& cached(Type type, const ConvProblem& d, ConvPass pass, bool bias, bool relu = false) {
  using Key = std::array<int64_t, 20>;
  static std::mutex mutex;
  static std::map<Key, std::unique_ptr<Convolution>> cache;
  const Key key{d.n,     d.c,        d.h,           d.w,
                d.k,     d.r,        d.s,           d.p,
                d.q,     d.stride_h, d.stride_w,    d.pad_h,
                d.pad_w, d.dil_h,    d.dil_w,       static_cast<int64_t>(pass),
                bias,    relu,       num_threads(), static_cast<int64_t>(type)};
  const std::lock_guard<std::mutex> lock(mutex);
  auto& entry = cache[key];
  if (!entry) entry = make(type, d, pass, bias, relu);
  return *entry;
}

}  // namespace

bool onednn_available() { return true; }

std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return str(v->major, ".", v->minor, ".", v->patch);
}

namespace conv_onednn {

// oneDNN's C++ API takes void* for inputs as well; it does not write to them.
// A scale goes into copies of weights and bias, which oneDNN reorders anyway; a residual, and the
// ReLU behind it, into a pass of their own.
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y) {
  const auto run = [&](const float* weights, const float* bias) {
    cached(Type::f32, d, ConvPass::forward, bias != nullptr, epilogue.relu && !epilogue.residual)
        .run(ConvPass::forward, const_cast<float*>(x), const_cast<float*>(weights), bias, y);
  };
  if (epilogue.scale) {
    const int64_t size = d.c * d.r * d.s;
    const Scratch scaled(static_cast<size_t>(d.w_size() + d.k) * sizeof(float));
    float *weights = scaled.as(), *bias = weights + d.w_size();
    for (int64_t k = 0; k < d.k; ++k) {
      for (int64_t i = k * size; i < (k + 1) * size; ++i) weights[i] = w[i] * epilogue.scale[k];
      bias[k] = (epilogue.bias ? epilogue.bias[k] * epilogue.scale[k] : 0.0f) + epilogue.shift[k];
    }
    run(weights, bias);
  } else {
    run(w, epilogue.bias);
  }
  if (!epilogue.residual) return;
  const ConvEpilogue rest{nullptr, nullptr, nullptr, epilogue.residual, epilogue.relu};
  parallel_for(d.y_size(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = rest(y[i], 0, i);
  });
}
void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  cached(Type::f32, d, ConvPass::grad_input, false)
      .run(ConvPass::grad_input, gx, const_cast<float*>(w), nullptr, const_cast<float*>(gy));
}
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  cached(Type::f32, d, ConvPass::grad_weight, false)
      .run(ConvPass::grad_weight, const_cast<float*>(x), gw, nullptr, const_cast<float*>(gy));
}

bool is_slow(const ConvProblem& d, ConvPass pass) { return cached(Type::f32, d, pass, false).slow; }

}  // namespace conv_onednn

void gemm_onednn::gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float* a,
                       int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc) {
  dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, 0.0f, c, ldc);
}

namespace conv_bf16 {

// What oneDNN may use: the processor's, or less where ONEDNN_MAX_CPU_ISA says so.
static bool may_use(dnnl::cpu_isa isa) {
  const auto bits = static_cast<unsigned>(isa);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}
bool available() {
  static const bool has = may_use(dnnl::cpu_isa::avx512_core_bf16);
  return has;
}
bool has_amx() {
  static const bool has = may_use(dnnl::cpu_isa::avx512_core_amx);
  return has;
}
// oneDNN's weight gradient leaves parts of gw unwritten, or reads scratch memory nobody set, where an
// axis is shorter than the stride or a tap of the kernel meets no pixel (2.6.3; the test
// ConvBf16.WeightGradientsOfTinyPlanes).
static bool every_tap_meets(int64_t size, int64_t out, int64_t stride, int64_t pad, int64_t last) {
  return size >= stride && (out - 1) * stride >= pad && last - pad < size;
}
bool applies(const ConvProblem& d, ConvPass pass) {
  if (!available() || d.groups != 1) return false;
  if (pass == ConvPass::grad_weight &&
      !(every_tap_meets(d.h, d.p, d.stride_h, d.pad_h, d.dil_h * (d.r - 1)) &&
        every_tap_meets(d.w, d.q, d.stride_w, d.pad_w, d.dil_w * (d.s - 1))))
    return false;
  return !cached(Type::bf16, d, pass, false).slow;
}
void forward(const ConvProblem& d, const bfloat16* x, const float* w, const ConvEpilogue& epilogue,
             bfloat16* y) {
  cached(Type::bf16, d, ConvPass::forward, epilogue.bias != nullptr)
      .run(ConvPass::forward, const_cast<bfloat16*>(x), const_cast<float*>(w), epilogue.bias, y);
}
void grad_input(const ConvProblem& d, const bfloat16* gy, const float* w, bfloat16* gx) {
  cached(Type::bf16, d, ConvPass::grad_input, false)
      .run(ConvPass::grad_input, gx, const_cast<float*>(w), nullptr, const_cast<bfloat16*>(gy));
}
void grad_weight(const ConvProblem& d, const bfloat16* gy, const bfloat16* x, float* gw) {
  cached(Type::bf16, d, ConvPass::grad_weight, false)
      .run(ConvPass::grad_weight, const_cast<bfloat16*>(x), gw, nullptr, const_cast<bfloat16*>(gy));
}

}  // namespace conv_bf16

void gemm_bf16::gemm(bool trans_a, bool trans_b, int64_t batch, int64_t m, int64_t n, int64_t k,
                     const bfloat16* a, const bfloat16* b, const float* bias, void* c,
                     DType c_dtype) {
  const auto row_major = [&](int64_t rows, int64_t cols, bool transposed, Type type) {
    const int64_t down = transposed ? 1 : cols, right = transposed ? rows : 1;
    return memory::desc({batch, rows, cols}, type, memory::dims{rows * cols, down, right});
  };
  const memory::desc da = row_major(m, k, trans_a, Type::bf16);
  const memory::desc db = row_major(k, n, trans_b, Type::bf16);
  const memory::desc dc = row_major(m, n, false, c_dtype == DType::bf16 ? Type::bf16 : Type::f32);
  const memory::desc add =
      bias ? memory::desc({1, 1, n}, Type::f32, memory::format_tag::abc) : memory::desc();
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  // oneDNN keeps the kernels that it made: a description of one that it knows is cheap.
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine(), da, db, add, dc, attr);
#else
  const dnnl::matmul::primitive_desc description(
      bias ? dnnl::matmul::desc(da, db, add, dc) : dnnl::matmul::desc(da, db, dc), attr, engine());
#endif
  const Scratch work(description.scratchpad_desc().get_size());
  std::unordered_map<int, memory> arguments{
      {DNNL_ARG_SRC, memory(da, engine(), const_cast<bfloat16*>(a))},
      {DNNL_ARG_WEIGHTS, memory(db, engine(), const_cast<bfloat16*>(b))},
      {DNNL_ARG_DST, memory(dc, engine(), c)},
      {DNNL_ARG_SCRATCHPAD, memory(description.scratchpad_desc(), engine(), work.as<void>())}};
  if (bias) arguments.emplace(DNNL_ARG_BIAS, memory(add, engine(), const_cast<float*>(bias)));
  dnnl::matmul(description).execute(stream(), arguments);
  stream().wait();
}
}  // namespace mtcki

#else  // no oneDNN: select_conv never picks these

namespace mtcki {

bool onednn_available() { return false; }
std::string onednn_version() { return ""; }

namespace conv_onednn {
namespace {
[[noreturn]] void missing() {
  throw UsageError("oneDNN kernels were asked for, but this build has none");
}
}  // namespace
void forward(const ConvProblem&, const float*, const float*, const ConvEpilogue&, float*) {
  missing();
}
void grad_input(const ConvProblem&, const float*, const float*, float*) { missing(); }
void grad_weight(const ConvProblem&, const float*, const float*, float*) { missing(); }
bool is_slow(const ConvProblem&, ConvPass) { return true; }
}  // namespace conv_onednn

void gemm_onednn::gemm(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*,
                       int64_t, float*, int64_t) {
  missing();
}

namespace conv_bf16 {
bool available() { return false; }
bool has_amx() { return false; }
bool applies(const ConvProblem&, ConvPass) { return false; }
void forward(const ConvProblem&, const bfloat16*, const float*, const ConvEpilogue&, bfloat16*) {
  conv_onednn::missing();
}
void grad_input(const ConvProblem&, const bfloat16*, const float*, bfloat16*) {
  conv_onednn::missing();
}
void grad_weight(const ConvProblem&, const bfloat16*, const bfloat16*, float*) {
  conv_onednn::missing();
}
}  // namespace conv_bf16

void gemm_bf16::gemm(bool, bool, int64_t, int64_t, int64_t, int64_t, const bfloat16*,
                     const bfloat16*, const float*, void*, DType) {
  conv_onednn::missing();
}
}  // namespace mtcki

#endif
