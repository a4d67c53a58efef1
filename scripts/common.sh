# Sourced by the scripts beside it: folders, the compiler, configure and build.
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD="${MTCKI_BUILD_DIR:-build}"
JOBS="${MTCKI_JOBS:-$(nproc)}"

say() { printf '%s\n' "== $*"; }
die() { printf '%s\n' "error: $*" >&2; exit 1; }

# A path as the caller meant it, before the change of folder above.
from_caller() { case "$1" in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$called_from/$1" ;; esac; }
# A number of minutes, or the end.
check_minutes() { [[ $1 =~ ^[1-9][0-9]*$ ]] || { echo "error: --minutes $1: expected a whole number above 0" >&2; exit 2; }; }

# run_for SECONDS COMMAND...: for at most so long. `timeout` gives the command a process group of its own, so that
# Ctrl-C, and a signal to the script, must be passed on: end_running is their trap.
running=
run_for() {
  local code=0
  timeout --kill-after=30 "$@" &
  running=$!
  wait "$running" || code=$?
  running=
  return "$code"
}
end_running() {
  if [ -n "$running" ]; then kill -TERM "$running" 2>/dev/null; wait "$running"; fi
  exit 130
}

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
