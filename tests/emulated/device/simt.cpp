#include "tests/emulated/device/simt.h"

#include <omp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "tensor/cuda/runtime.h"
#include "tests/emulated/device/device.h"

#if !defined(__x86_64__)
#define MTCKI_SIMT_UCONTEXT 1
#else
// swapcontext saves the signal mask, two system calls per switch; this saves what the ABI asks for.
extern "C" void mtcki_simt_switch(void** from, void* to);
asm(R"(
.text
.type mtcki_simt_switch, @function
mtcki_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mtcki_simt_switch, .-mtcki_simt_switch
)");
#endif

namespace mtcki::cuda::simt {

thread_local Position here;

namespace {

constexpr size_t kStack = 128 << 10;
constexpr int kTurn =
    256;  // threads that take part in a turn: those that wait, those that end theirs

#if defined(MTCKI_SIMT_UCONTEXT)
struct Context {
  ucontext_t state;
};
void switch_to(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
void prepare(Context& c, void* stack, size_t bytes, void (*entry)()) {
  getcontext(&c.state);
  c.state.uc_stack.ss_sp = stack;
  c.state.uc_stack.ss_size = bytes;
  c.state.uc_link = nullptr;
  makecontext(&c.state, entry, 0);
}
#else
struct Context {
  void* sp = nullptr;
};
void switch_to(Context& from, Context& to) { mtcki_simt_switch(&from.sp, to.sp); }
void prepare(Context& c, void* stack, size_t bytes, void (*entry)()) {
  auto top = reinterpret_cast<uintptr_t>(stack) + bytes;
  top &= ~uintptr_t{15};
  void** sp = reinterpret_cast<void**>(top) - 1;  // as after a call: 8 below a multiple of 16
  *sp = nullptr;                                  // no return address: entry never returns
  *--sp = reinterpret_cast<void*>(entry);
  sp -= 6;  // callee-saved registers
  std::memset(sp, 0, 6 * sizeof(void*));
  c.sp = sp;
}
#endif

// One coroutine. It runs threads of the block one after the other until one of them yields; that
// one keeps it until it is done.
struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack;
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  int group;

  void run() const { from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes); }
};

struct ThreadState {
  bool done = false;
  Wait wait = Wait::none;
  int fiber = -1;
  std::vector<Copy> copies = {};   // under way, in their order
  int groups = 0;                  // of copies, ended so far
  std::vector<Copy> arrived = {};  // that tensor cores do not see yet
  bool waited = false;             // for the kernel before
  int turn = -1;                   // that it waits for
};

// The block that this OS thread runs.
struct Block {
  Context scheduler;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<int> idle;
  std::vector<ThreadState> threads;
  std::vector<uint64_t> slots;
  std::vector<unsigned char> shared;
  const std::function<void()>* kernel = nullptr;
  int running_fiber = -1;
  std::vector<int> order;
  size_t next = 0;  // position in `order` of the next thread that has not started
  size_t end = 0;   // that of the first one that may not start yet
  uint32_t shuffle = 0;
  bool warp_by_warp = false, copy_at_once = false, early = false;
  std::array<int, 2> arrived_at_turn{};
  bool any_arrived = false;  // ThreadState::arrived is not empty for some thread
};
thread_local Block b;

[[noreturn]] void end_program(const char* why) {
  std::fprintf(stderr, "simt: %s, in block %u,%u,%u\n", why, here.block_index.x, here.block_index.y,
               here.block_index.z);
  std::abort();
}

ThreadState& this_thread() { return b.threads[static_cast<size_t>(here.thread)]; }

void set_thread(int index) {
  here.thread = index;
  const auto i = static_cast<unsigned>(index);
  here.thread_index =
      dim3(i % here.block.x, (i / here.block.x) % here.block.y, i / (here.block.x * here.block.y));
}

void fiber_main() {
  for (;;) {
    const int fiber = b.running_fiber;
    while (b.next < b.end) {
      const int t = b.order[b.next++];
      ThreadState& state = b.threads[static_cast<size_t>(t)];
      state.fiber = fiber;
      set_thread(t);
      (*b.kernel)();
      if (b.early && !state.waited)
        end_program(
            "a thread of a kernel that was launched early never called wait_for_previous()");
      state.done = true;
      state.fiber = -1;
      // After a yield this fiber was resumed for t alone; starting others is the scheduler's choice
      // again, which comes here too while any are left.
    }
    b.idle.push_back(fiber);
    switch_to(b.fibers[static_cast<size_t>(fiber)]->context, b.scheduler);
  }
}

int take_fiber() {
  if (!b.idle.empty()) {
    const int f = b.idle.back();
    b.idle.pop_back();
    return f;
  }
  auto fiber = std::make_unique<Fiber>();
  fiber->stack.reset(new char[kStack]);
  prepare(fiber->context, fiber->stack.get(), kStack, fiber_main);
  b.fibers.push_back(std::move(fiber));
  return static_cast<int>(b.fibers.size()) - 1;
}

void resume(int fiber) {
  b.running_fiber = fiber;
  switch_to(b.scheduler, b.fibers[static_cast<size_t>(fiber)]->context);
}

// Releases threads [first, last) when each unfinished one waits for w.
bool release(size_t first, size_t last, Wait w) {
  bool some = false;
  for (size_t i = first; i < last; ++i) {
    if (b.threads[i].done) continue;
    if (b.threads[i].wait != w) return false;
    some = true;
  }
  for (size_t i = first; i < last; ++i) b.threads[i].wait = Wait::none;
  return some;
}

std::atomic<uint32_t>& shuffle_seed() {
  static std::atomic<uint32_t> seed = [] {
    const char* text = std::getenv("MTCKI_SIMT_SHUFFLE");
    return text ? static_cast<uint32_t>(std::strtoul(text, nullptr, 10)) : kDefaultShuffle;
  }();
  return seed;
}

size_t random_below(size_t n) {
  b.shuffle = b.shuffle * 1664525u + 1013904223u;
  return (b.shuffle >> 8) % n;
}
template <class It>
void shuffle(It begin, It end) {
  for (auto n = end - begin; n > 1; --n)
    std::swap(begin[n - 1], begin[random_below(static_cast<size_t>(n))]);
}

// The order in which the threads of a block start; those that run together (a warp, or all) in one
// piece.
void set_order(size_t together) {
  const size_t n = b.order.size();
  std::iota(b.order.begin(), b.order.end(), 0);
  if (b.shuffle == 0) return;
  std::vector<int> warps((n + together - 1) / together);
  std::iota(warps.begin(), warps.end(), 0);
  shuffle(warps.begin(), warps.end());
  auto out = b.order.begin();
  for (const int w : warps) {
    const size_t first = static_cast<size_t>(w) * together, last = std::min(n, first + together);
    const auto begin = out;
    for (size_t t = first; t < last; ++t) *out++ = static_cast<int>(t);
    shuffle(begin, out);
  }
}

bool release_turns() {
  bool some = false;
  for (size_t w = 0; w < b.arrived_at_turn.size(); ++w) {
    if (b.arrived_at_turn[w] < kTurn) continue;
    b.arrived_at_turn[w] -= kTurn;
    for (ThreadState& t : b.threads)
      if (!t.done && t.wait == Wait::turn && t.turn == static_cast<int>(w)) {
        t.wait = Wait::none;
        some = true;
      }
  }
  return some;
}

// Positions [first, last) of the order, as far as they come without the others.
bool run_together(size_t first, size_t last) {
  bool any = false;
  for (bool ran = true; ran;) {
    ran = false;
    b.end = last;
    for (; b.next < last; ran = true) resume(take_fiber());
    for (size_t i = first; i < last; ++i) {
      const int t = b.order[i];
      const ThreadState& state = b.threads[static_cast<size_t>(t)];
      if (state.done || state.wait != Wait::none) continue;
      ran = true;
      set_thread(t);
      resume(state.fiber);
    }
    any |= ran;
    for (size_t i = first; i < last; i += 32) {
      // A piece is one warp, in any order, or all of them.
      const size_t w = last - first <= 32 ? static_cast<size_t>(b.order[i]) / 32 * 32 : i;
      ran |= release(w, std::min(b.threads.size(), w + 32), Wait::warp);
    }
  }
  return any;
}

void run_block() {
  const size_t n = b.threads.size(), together = b.warp_by_warp ? 32 : n;
  for (ThreadState& t : b.threads) t = {};
  b.arrived_at_turn = {};
  b.any_arrived = false;
  set_order(together);
  b.next = 0;
  std::vector<size_t> starts;
  for (size_t i = 0; i < n; i += together) starts.push_back(i);
  for (;;) {
    bool ran = false;
    for (const size_t first : starts) ran |= run_together(first, std::min(n, first + together));
    if (b.shuffle) shuffle(starts.begin(), starts.end());
    if (ran) continue;
    bool released = release_turns();
    for (size_t w = 0; w < n; w += 128)
      released |= release(w, std::min(n, w + 128), Wait::warpgroup);
    if (released || release(0, n, Wait::block)) continue;
    if (std::all_of(b.threads.begin(), b.threads.end(), [](const auto& t) { return t.done; })) {
      if (b.arrived_at_turn != decltype(b.arrived_at_turn){})
        end_program("a turn that nobody takes");
      return;
    }
    end_program("a barrier that not every thread reaches");
  }
}

void run_grid(dim3 grid, dim3 block, size_t shared, bool early,
              const std::function<void()>& kernel) {
  const DeviceAccess access;
  const int64_t blocks = int64_t{1} * grid.x * grid.y * grid.z;
  const size_t threads = size_t{1} * block.x * block.y * block.z;
  const auto run = [&](int64_t index) {
    here.grid = grid;
    here.block = block;
    here.block_index =
        dim3(static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
             static_cast<unsigned>(index / (int64_t{1} * grid.x * grid.y)));
    if (b.threads.size() != threads) {
      b.threads.resize(threads);
      b.slots.resize(threads);
      b.order.resize(threads);
    }
    // A read of what nobody wrote shows; and one beside it under AddressSanitizer.
    if (b.shared.size() != shared) b.shared = std::vector<unsigned char>(shared);
    std::fill(b.shared.begin(), b.shared.end(), static_cast<unsigned char>(0xCD));
    b.kernel = &kernel;
    b.shuffle = shuffle_seed().load(std::memory_order_relaxed);
    b.warp_by_warp = b.shuffle % 2 == 1;
    b.copy_at_once = b.shuffle / 2 % 2 == 1;
    b.early = early;
    run_block();
  };
  if (blocks == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < blocks; ++i) run(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < blocks; ++i) run(i);
}

}  // namespace

void yield(Wait wait) {
  ThreadState& state = this_thread();
  state.wait = wait;
  switch_to(b.fibers[static_cast<size_t>(state.fiber)]->context, b.scheduler);
}

const uint64_t* publish(uint64_t value) {
  const auto me = static_cast<size_t>(here.thread);
  b.slots[me] = value;
  yield(Wait::warp);
  return &b.slots[me & ~size_t{31}];
}

void wait_turn(int turn) {
  ++b.arrived_at_turn[static_cast<size_t>(turn)];
  this_thread().turn = turn;
  yield(Wait::turn);
}
void arrive_turn(int turn) { ++b.arrived_at_turn[static_cast<size_t>(turn)]; }

void copy_later(void* to, const void* from, size_t bytes) {
  const Copy copy{to, from, bytes, this_thread().groups};
  if (b.copy_at_once) copy.run();
  this_thread().copies.push_back(copy);
}

void end_copies() { ++this_thread().groups; }

void wait_copies(int open) {
  ThreadState& state = this_thread();
  auto next = state.copies.begin();
  for (; next != state.copies.end() && next->group < state.groups - open; ++next) {
    if (!b.copy_at_once) next->run();
    state.arrived.push_back(*next);
    b.any_arrived = true;
  }
  state.copies.erase(state.copies.begin(), next);
}

void publish_copies() { this_thread().arrived.clear(); }

void check_published(const void* from, const void* to) {
  if (!b.any_arrived) return;
  b.any_arrived = false;
  for (const ThreadState& t : b.threads) {
    b.any_arrived |= !t.arrived.empty();
    for (const Copy& c : t.arrived)
      if (c.to<to&& static_cast<const char*>(c.to) + c.bytes> from)
        end_program(
            "tensor cores read what was copied to shared memory before "
            "publish_to_products()");
  }
}

void note_wait_for_previous() { this_thread().waited = true; }

int64_t most_blocks() {
  static const int64_t most = [] {
    const char* text = std::getenv("MTCKI_EMULATE_GRID");
    const int64_t n = text ? std::strtoll(text, nullptr, 10) : 3;
    return n > 0 ? n : std::numeric_limits<int64_t>::max();
  }();
  return most;
}

void set_shuffle(uint32_t seed) { shuffle_seed().store(seed); }

void* dynamic_shared() {
  static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= 16);
  return b.shared.data();
}

void check_shared(size_t bytes) {
  if (const size_t most = device_info(0).shared; bytes > most)
    throw Error(str("simt: ", bytes, " bytes of shared memory in a block; this GPU has ", most));
}

void launch(dim3 grid, dim3 block, size_t shared, bool early, std::function<void()> thread) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const size_t threads = size_t{1} * block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.y > 65535 || grid.z > 65535)
    throw Error(str("simt: no GPU runs a block of ", threads, " threads in a grid of ", grid.x, "x",
                    grid.y, "x", grid.z));
  check_shared(shared);
  issue([=] { run_grid(grid, block, shared, early, thread); });
}

}  // namespace mtcki::cuda::simt
