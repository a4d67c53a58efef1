# Sourced by the scripts beside it: folders, the compiler, configure and build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD="${MTCKI_BUILD_DIR:-build}"
JOBS="${MTCKI_JOBS:-$(nproc)}"

say() { printf '%s\n' "== $*"; }
die() { printf '%s\n' "error: $*" >&2; exit 1; }

# The C++ compiler: $CXX when set, else g++ when it is 12 or newer, else the newest g++-NN.
find_compiler() {
  if [ -n "${CXX:-}" ]; then echo "$CXX"; return; fi
  local name version
  for name in g++ g++-14 g++-13 g++-12; do
    command -v "$name" >/dev/null 2>&1 || continue
    version=$("$name" -dumpversion)
    if [ "${version%%.*}" -ge 12 ]; then echo "$name"; return; fi
  done
}

# Ninja for new build folders where it is installed; one that is there keeps its generator.
prefer_ninja() {
  if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null 2>&1; then export CMAKE_GENERATOR=Ninja; fi
}

# configure [CMAKE ARGUMENTS]: Release by default.
configure() {
  local compiler; compiler=$(find_compiler)
  [ -n "$compiler" ] || die "no g++ 12 or newer found; install one (apt install g++-12) or set CXX"
  prefer_ninja
  local first=()
  if [ ! -f "$BUILD/CMakeCache.txt" ]; then first=("-DCMAKE_CXX_COMPILER=$compiler"); fi
  say "configure $BUILD"
  cmake -S . -B "$BUILD" "${first[@]}" -DCMAKE_BUILD_TYPE=Release "$@"
}

# build [TARGETS]: everything without targets.
build() {
  local targets=()
  if [ $# -gt 0 ]; then targets=(--target "$@"); fi
  say "build $BUILD ($JOBS jobs)"
  cmake --build "$BUILD" -j "$JOBS" "${targets[@]}"
}
