// The emulated GPU's streams: work runs as late or as early as the waits allow, so that a wait that
// is missing shows; captures refuse what a GPU would not put into the graph.
#include <gmock/gmock.h>

#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/emulated/device/device.h"

namespace mtcki {
namespace {

using cuda::StreamTimes;
using ::testing::HasSubstr;
using testing::kGpu;

constexpr StreamTimes kTimes[] = {StreamTimes::late, StreamTimes::early,
                                  StreamTimes::early_reversed};

class EmulatedStreams : public testing::CudaTest {
 protected:
  void SetUp() override {
    testing::CudaTest::SetUp();
    cuda::set_stream_times(StreamTimes::late);
  }
  void TearDown() override { cuda::set_stream_times(StreamTimes::late); }
};

Tensor value(double v) { return Tensor::full({4}, v, DType::f32, kGpu); }
double read(const Tensor& x) { return x.slice(0, 1).item(); }

void on_stream(int stream, const std::function<void()>& work) {
  const cuda::StreamScope scope(stream);
  work();
}

struct Waits {
  bool fork = true, join = true;
};
// 5, where all waits are there: stream 0 writes 2, stream 1 adds 3.
double fork_and_join(Waits waits) {
  Tensor x = Tensor::zeros({4}, DType::f32, kGpu);
  const Tensor two = value(2), three = value(3);
  cuda::synchronize();
  x.copy_(two);
  if (waits.fork) cuda::wait_stream(1, 0);
  on_stream(1, [&] { add_(x, three); });
  if (waits.join) cuda::wait_stream(0, 1);
  const double got = read(x);
  cuda::synchronize();
  return got;
}

TEST_F(EmulatedStreams, AMissingWaitShows) {
  for (const StreamTimes times : kTimes) {
    cuda::set_stream_times(times);
    EXPECT_EQ(fork_and_join({}), 5);
  }
  cuda::set_stream_times(StreamTimes::late);
  EXPECT_EQ(fork_and_join({true, false}), 2) << "no join";
  EXPECT_EQ(fork_and_join({false, true}), 5) << "no fork: only work that comes early shows it";
  cuda::set_stream_times(StreamTimes::early);
  EXPECT_EQ(fork_and_join({false, true}), 2) << "no fork";
}

// Who waits knows; others do not.
TEST_F(EmulatedStreams, AWaitOfAnotherStreamDoesNotServe) {
  const Tensor x = value(0), three = value(3);
  cuda::wait_stream(1, 0);
  cuda::wait_stream(2, 0);
  on_stream(1, [&] { add_(x, three); });
  cuda::wait_stream(2, 1);
  EXPECT_EQ(read(x), 0) << "stream 2 alone waits for stream 1";
  cuda::wait_stream(0, 2);
  EXPECT_EQ(read(x), 3) << "through stream 2";
}

// Streams that do not wait for each other run in either order.
TEST_F(EmulatedStreams, TwoStreamsInEitherOrder) {
  double got[2];
  for (const int i : {0, 1}) {
    cuda::set_stream_times(i ? StreamTimes::early_reversed : StreamTimes::early);
    const Tensor x = value(1), three = value(3);
    cuda::wait_stream(1, 0);
    cuda::wait_stream(2, 0);
    on_stream(1, [&] { add_(x, three); });
    on_stream(2, [&] { mul_(x, 2.0); });
    cuda::wait_stream(0, 1);
    cuda::wait_stream(0, 2);
    got[i] = read(x);
  }
  EXPECT_EQ(got[0], 1 * 2 + 3);
  EXPECT_EQ(got[1], (1 + 3) * 2);
}

// Pinned memory that is written again before its copy ran.
TEST_F(EmulatedStreams, PinnedMemoryIsReadWhenTheCopyRuns) {
  cuda::set_stream_times(StreamTimes::early);
  auto* pinned = static_cast<float*>(cuda::malloc_pinned(16));
  for (const bool waits : {true, false}) {
    const Tensor x = Tensor::empty({4}, DType::f32, kGpu);
    std::fill_n(pinned, 4, 1.0f);
    cuda::copy_from_pinned(x.raw(), pinned, 16);
    cuda::Event copied;
    copied.record();
    if (waits) copied.wait();
    std::fill_n(pinned, 4, 2.0f);
    EXPECT_EQ(read(x), waits ? 1 : 2);
  }
  cuda::free_pinned(pinned);
}

std::string refusal(const std::function<void()>& step) {
  cuda::Graph graph;
  graph.begin();
  try {
    step();
    graph.end();
  } catch (const Error& e) {
    graph.abandon();
    EXPECT_FALSE(cuda::capturing());
    return e.what();
  }
  return "";
}

TEST_F(EmulatedStreams, ACaptureRefusesWhatIsNotInTheGraph) {
  const Tensor x = value(0), three = value(3);
  const auto add = [&](int stream) { on_stream(stream, [&] { add_(x, three); }); };
  const auto fork = [](int stream) { cuda::wait_stream(stream, 0); };
  EXPECT_THAT(refusal([&] { add(1); }), HasSubstr("stream 1 was given work"));
  EXPECT_THAT(refusal([&] { cuda::wait_stream(0, 1); }), HasSubstr("no part in the capture"));
  EXPECT_THAT(refusal([&] { fork(1), add(1); }), HasSubstr("nobody waits"));
  EXPECT_THAT(refusal([&] {
                fork(1), add(1);
                cuda::wait_stream(2, 1);
              }),
              HasSubstr("nobody waits"))
      << "stream 2 waits, but nobody for stream 2";
  EXPECT_THAT(refusal([&] {
                fork(1), add(1), cuda::wait_stream(0, 1);
                add(1);
              }),
              HasSubstr("nobody waits"))
      << "more was given after the wait";
  EXPECT_EQ(refusal([&] {
              fork(1), add(1), cuda::wait_stream(2, 1);
              add(2), cuda::wait_stream(0, 2);
            }),
            "");
}

TEST_F(EmulatedStreams, AReplayKeepsTheWaits) {
  for (const StreamTimes times : kTimes) {
    cuda::set_stream_times(times);
    const Tensor x = value(1), three = value(3);
    cuda::Graph graph;
    graph.begin();
    add_(x, three);
    cuda::wait_stream(1, 0);
    on_stream(1, [&] { mul_(x, 2.0); });
    cuda::wait_stream(0, 1);
    add_(x, three);
    graph.end();
    EXPECT_EQ(graph.nodes(), 3u);
    EXPECT_EQ(read(x), 1) << "a capture runs nothing";
    graph.launch();
    graph.launch();
    EXPECT_EQ(read(x), ((1 + 3) * 2 + 3 + 3) * 2 + 3);
  }
}

TEST_F(EmulatedStreams, ThereAreSixteenStreams) {
  on_stream(15, [] {});
  EXPECT_THAT([] { on_stream(16, [] {}); },
              ::testing::ThrowsMessage<Error>(HasSubstr("there are 16")));
}

}  // namespace
}  // namespace mtcki
