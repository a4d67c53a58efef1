# MTCKI_ARCH=x86-64-v3;x86-64-v4: the program once per instruction set, in builds of their own below BUILD/variants/,
# and BUILD/mtcki, which starts the one that suits the CPU (docs/decisions/instruction-sets.md).
#   cmake --install BUILD --prefix P:   P/bin/mtcki   P/libexec/mtcki/x86-64-v3/mtcki   ...
include(GNUInstallDirs)
include(ExternalProject)

foreach(_arch ${MTCKI_ARCH})
  if(NOT _arch MATCHES "^x86-64(-v[234])?$")
    message(FATAL_ERROR "MTCKI_ARCH=${MTCKI_ARCH}: a list may hold x86-64, x86-64-v2, -v3 and -v4, not ${_arch}")
  endif()
endforeach()
if(NOT MTCKI_CPU_LEVELS)
  message(FATAL_ERROR "MTCKI_ARCH=${MTCKI_ARCH}: a list needs an x86-64 compiler that tells these apart at run time "
                      "(GCC 11, clang 18 or newer); give one instruction set")
endif()

# Everything that was chosen for this build holds for each of them.
set(_options)
get_cmake_property(_names CACHE_VARIABLES)
foreach(_name ${_names})
  get_property(_help CACHE ${_name} PROPERTY HELPSTRING)
  if(_name MATCHES "^MTCKI_(ARCH|BUILD_.*|CPU_LEVELS)$" OR _name STREQUAL "CMAKE_INSTALL_PREFIX")
    continue()
  endif()
  if(_name MATCHES "^MTCKI_|^CMAKE_(BUILD_TYPE|CXX_COMPILER|CXX_FLAGS|EXE_LINKER_FLAGS|.*_LAUNCHER)$" OR
     _help MATCHES "variable specified on the command line")
    get_property(_type CACHE ${_name} PROPERTY TYPE)
    if(_type STREQUAL "UNINITIALIZED")
      set(_type STRING)
    endif()
    list(APPEND _options "-D${_name}:${_type}=${${_name}}")
  endif()
endforeach()

add_subdirectory(launcher)
set_target_properties(mtcki_launcher PROPERTIES OUTPUT_NAME mtcki)
install(TARGETS mtcki_launcher RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(_arch ${MTCKI_ARCH})
  set(_build ${CMAKE_BINARY_DIR}/variants/${_arch})
  # One after the other (the terminal is one), each with all jobs.
  ExternalProject_Add(mtcki_${_arch} SOURCE_DIR ${CMAKE_SOURCE_DIR} BINARY_DIR ${_build}
    PREFIX ${_build}-steps CMAKE_GENERATOR ${CMAKE_GENERATOR}
    CMAKE_CACHE_ARGS ${_options} -DMTCKI_ARCH:STRING=${_arch} -DMTCKI_BUILD_TESTS:BOOL=OFF
                     -DMTCKI_BUILD_BENCH:BOOL=OFF -DMTCKI_BUILD_EXAMPLES:BOOL=OFF
    BUILD_COMMAND ${CMAKE_COMMAND} --build ${_build} --target mtcki_cli
    BUILD_ALWAYS ON USES_TERMINAL_BUILD ON INSTALL_COMMAND "")
  install(PROGRAMS ${_build}/mtcki DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/mtcki/${_arch})
endforeach()
include(MtckiPackage)
mtcki_package(mtcki_launcher)
string(REPLACE ";" ", " _list "${MTCKI_ARCH}")
message(STATUS "mtcki ${PROJECT_VERSION} for ${_list}: only the program; no tests, benchmarks, libraries to install")
