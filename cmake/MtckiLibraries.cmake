# The standard headers, parsed once instead of by each of some 250 files: half of the time that a small file takes. Only
# headers that never change while one works; sources include what they use all the same
# (-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON compiles without this, as the preset `asan` does).
set(MTCKI_STANDARD_HEADERS <algorithm> <array> <atomic> <chrono> <cmath> <cstdint> <cstring> <exception> <filesystem>
    <fstream> <functional> <limits> <map> <memory> <mutex> <optional> <set> <sstream> <stdexcept> <string> <type_traits>
    <utility> <vector>)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/headers.cpp CONTENT "// Compiled with the precompiled headers, for all targets.\n")
foreach(_headers mtcki_headers mtcki_hardened_headers)  # other flags, other headers
  add_library(${_headers} OBJECT ${CMAKE_BINARY_DIR}/headers.cpp)
  target_link_libraries(${_headers} PRIVATE mtcki_options OpenMP::OpenMP_CXX)
  target_precompile_headers(${_headers} PRIVATE ${MTCKI_STANDARD_HEADERS})
endforeach()
mtcki_harden(mtcki_hardened_headers)
mtcki_compile_quickly(mtcki_hardened_headers PRIVATE)

# The files of a folder compile as one, so that the headers they share are read once: a third less to compile. For work on
# one file, which then compiles alone: -DMTCKI_UNITY=OFF. Both must compile: names in unnamed namespaces are unique within
# a folder.
option(MTCKI_UNITY "Compile the files of a folder together" ON)

# mtcki_library(NAME [UNITY] [HARDENED] [PUBLIC ...] [PRIVATE ...]): the static library of folder NAME and mtcki::NAME.
# Sources are globbed: adding a file needs no edit here. cli/, start/ and the two CUDA devices
# have targets of their own.
function(mtcki_library name)
  cmake_parse_arguments(ARG "UNITY;HARDENED" "" "PUBLIC;PRIVATE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/cli/|/start/|/cuda/(native|absent)/")
  if(NOT sources)
    message(FATAL_ERROR "mtcki_library(${name}): no sources")
  endif()
  add_library(mtcki_${name} STATIC ${sources})
  add_library(mtcki::${name} ALIAS mtcki_${name})
  set_target_properties(mtcki_${name} PROPERTIES EXPORT_NAME ${name})
  if(ARG_HARDENED)
    mtcki_harden(mtcki_${name})
    mtcki_compile_quickly(mtcki_${name} PRIVATE)  # data and mtcki; their numbers are computed by the libraries below
    target_precompile_headers(mtcki_${name} REUSE_FROM mtcki_hardened_headers)
  else()
    target_precompile_headers(mtcki_${name} REUSE_FROM mtcki_headers)
  endif()
  if(ARG_UNITY AND MTCKI_UNITY)
    foreach(source ${sources})
      cmake_path(GET source PARENT_PATH folder)
      cmake_path(RELATIVE_PATH folder BASE_DIRECTORY ${CMAKE_SOURCE_DIR})
      string(REPLACE "/" "_" folder ${folder})
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${folder})
    endforeach()
    set_target_properties(mtcki_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  endif()
  target_link_libraries(mtcki_${name} PUBLIC mtcki_options ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()
