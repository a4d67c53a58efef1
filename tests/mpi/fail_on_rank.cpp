// fail_on_rank R: rank R meets an error while the others wait for it in a collective.
#include <cstdio>
#include <cstdlib>

#include "tensor/comm.h"
#include "tensor/error.h"

int main(int argc, char** argv) {
  using mtcki::Communicator;
  const Communicator& world = Communicator::world();
  const int failing = argc > 1 ? std::atoi(argv[1]) : 0;
  try {
    if (world.rank() == failing) throw mtcki::DataError("rank test: the file is damaged");
    world.barrier();
  } catch (const mtcki::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    mtcki::abort_job(e.exit_code());
    return e.exit_code();
  }
  return 0;
}
