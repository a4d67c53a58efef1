# Finds nvcc, the static CUDA runtime, cuBLAS(Lt) and cuDNN >= 9 (and CUPTI, optional) in an installed toolkit or in a tree of
# Python wheels (site-packages/nvidia/cu13 and nvidia/cudnn). find_package(CUDAToolkit) does not understand the wheel tree.
#   MTCKI_CUDA            AUTO: use CUDA if everything is found and a GPU is there (or MTCKI_CUDA_WITHOUT_GPU, or
#                         CMAKE_CUDA_ARCHITECTURES was given); ON: use it, stop with an error if a part is missing; OFF: never
#   MTCKI_CUDA_ROOT       optional hint; also read: CUDA_HOME, CUDA_PATH, CUDNN_ROOT, nvcc on PATH, /usr/local/cuda
# Result: MTCKI_WITH_CUDA, targets mtcki_cuda::{cudart,cublas,cublasLt,cudnn[,cupti]}, language CUDA enabled.
# Include after project(... LANGUAGES CXX).
#
# mtcki_cuda_backends(): the devices behind tensor/cuda/runtime.h. Every program links one of them through mtcki::tensor:
#   mtcki_cuda_native     *.cu by nvcc, tensor/cuda/native/; only with CUDA
#   mtcki_cuda_absent     without CUDA: tensor/cuda/absent/ and no kernels; there is never a GPU
#   mtcki_cuda_emulated   *.cu by the host compiler, tests/emulated/device/; for targets with the property
#                         MTCKI_EMULATED_CUDA, which are tests of the kernels on machines without a GPU
#   mtcki_cuda_asan       the same under AddressSanitizer, for targets where that property is "asan"
set(MTCKI_WITH_CUDA OFF)
set(MTCKI_CUDA_WHY "switched off (MTCKI_CUDA=OFF)")

function(_mtcki_python_package module out)
  find_program(MTCKI_PYTHON NAMES python3 python)
  mark_as_advanced(MTCKI_PYTHON)
  set(dir "")
  if(MTCKI_PYTHON)
    execute_process(
      COMMAND ${MTCKI_PYTHON} -c "import importlib.util as u
try: s = u.find_spec('${module}')
except ImportError: s = None
print(list(s.submodule_search_locations)[0] if s else '')"
      OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(${out} "${dir}" PARENT_SCOPE)
endfunction()

if(NOT MTCKI_CUDA STREQUAL "OFF")
  # 1. where to look, best first
  set(_roots ${MTCKI_CUDA_ROOT} $ENV{CUDA_HOME} $ENV{CUDA_PATH})
  find_program(MTCKI_NVCC_ON_PATH nvcc)
  mark_as_advanced(MTCKI_NVCC_ON_PATH)
  if(MTCKI_NVCC_ON_PATH)  # it may be a wrapper script far from the toolkit: ask it where it lives
    execute_process(COMMAND ${MTCKI_NVCC_ON_PATH} --dryrun -E -x cu /dev/null ERROR_VARIABLE _dry OUTPUT_QUIET)
    if(_dry MATCHES "_HERE_=([^\r\n]+)")
      file(REAL_PATH ${CMAKE_MATCH_1} _bin)
      get_filename_component(_root ${_bin} DIRECTORY)
      list(APPEND _roots ${_root})
    endif()
  endif()
  _mtcki_python_package(nvidia.cu13 _wheel)
  list(APPEND _roots /usr/local/cuda ${_wheel})
  set(_cudnn_roots $ENV{CUDNN_ROOT})
  foreach(_r IN LISTS _roots)
    list(APPEND _cudnn_roots ${_r} ${_r}/../cudnn)
  endforeach()
  _mtcki_python_package(nvidia.cudnn _wheel)
  list(APPEND _cudnn_roots ${_wheel})

  # 2. the parts; wheels hold only versioned libraries (libcublas.so.13) and lib/, no lib64/.
  #    NAMES_PER_DIR: without it an unversioned library of a later directory wins over a versioned one of the right directory.
  find_program(MTCKI_NVCC nvcc HINTS ${_roots} PATH_SUFFIXES bin NO_DEFAULT_PATH)
  find_path(MTCKI_CUDART_INCLUDE cuda_runtime.h HINTS ${_roots} PATH_SUFFIXES include NO_DEFAULT_PATH)
  find_library(MTCKI_CUDART_LIBRARY NAMES cudart_static libcudart_static.a NAMES_PER_DIR HINTS ${_roots}
               PATH_SUFFIXES lib64 lib)
  foreach(_l cublas cublasLt cupti)
    string(TOUPPER ${_l} _u)
    find_library(MTCKI_${_u}_LIBRARY NAMES ${_l} lib${_l}.so.13 lib${_l}.so.12 NAMES_PER_DIR HINTS ${_roots}
                 PATH_SUFFIXES lib64 lib)
  endforeach()
  find_path(MTCKI_CUDNN_INCLUDE cudnn_graph.h HINTS ${_cudnn_roots} PATH_SUFFIXES include)
  find_library(MTCKI_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 NAMES_PER_DIR HINTS ${_cudnn_roots} PATH_SUFFIXES lib64 lib)
  if(MTCKI_CUDNN_INCLUDE)
    file(STRINGS ${MTCKI_CUDNN_INCLUDE}/cudnn_version.h _v REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
    string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCHLEVEL ([0-9]+).*" "\\1.\\2.\\3" MTCKI_CUDNN_VERSION "${_v}")
  endif()

  set(_missing "")
  foreach(_part NVCC CUDART_INCLUDE CUDART_LIBRARY CUBLAS_LIBRARY CUBLASLT_LIBRARY CUDNN_INCLUDE CUDNN_LIBRARY)
    if(NOT MTCKI_${_part})
      list(APPEND _missing ${_part})
    endif()
  endforeach()
  if(MTCKI_CUDNN_VERSION AND MTCKI_CUDNN_VERSION VERSION_LESS 9.8)
    list(APPEND _missing "cuDNN>=9.8 (found ${MTCKI_CUDNN_VERSION})")
  endif()
  # The compute capabilities of the GPUs of this machine, as in 90;120.
  set(_gpus "")
  find_program(MTCKI_NVIDIA_SMI nvidia-smi)
  mark_as_advanced(MTCKI_NVIDIA_SMI)
  if(MTCKI_NVIDIA_SMI)
    execute_process(COMMAND ${MTCKI_NVIDIA_SMI} --query-gpu=compute_cap --format=csv,noheader
                    OUTPUT_VARIABLE _smi ERROR_QUIET)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" _gpus "${_smi}")
    list(REMOVE_DUPLICATES _gpus)
    list(SORT _gpus COMPARE NATURAL)
    string(REPLACE "." "" _gpus "${_gpus}")
  endif()

  if(_missing)
    string(REPLACE ";" " " MTCKI_CUDA_WHY "not found: ${_missing}")
    if(MTCKI_CUDA STREQUAL "ON")
      message(FATAL_ERROR "MTCKI_CUDA=ON but ${MTCKI_CUDA_WHY}. Set MTCKI_CUDA_ROOT and CUDNN_ROOT, or use MTCKI_CUDA=OFF.")
    endif()
  elseif(MTCKI_CUDA STREQUAL "AUTO" AND NOT _gpus AND NOT CMAKE_CUDA_ARCHITECTURES AND NOT MTCKI_CUDA_WITHOUT_GPU)
    set(MTCKI_CUDA_WHY "CUDA is there, but no GPU (nvidia-smi names none); MTCKI_CUDA=ON compiles for one elsewhere")
  else()
    set(MTCKI_WITH_CUDA ON)
  endif()
endif()

if(MTCKI_WITH_CUDA)
  # 3. the language; for the GPUs of this machine, else sm_80 and sm_90 machine code plus sm_90 PTX for later chips.
  set(MTCKI_CUDA_FOR "as CMAKE_CUDA_ARCHITECTURES says")
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    if(_gpus)
      list(TRANSFORM _gpus APPEND "-real")
      set(CMAKE_CUDA_ARCHITECTURES ${_gpus})
      set(MTCKI_CUDA_FOR "the GPU of this machine only")
    else()
      set(CMAKE_CUDA_ARCHITECTURES "80-real;90")
      set(MTCKI_CUDA_FOR "no GPU is here")
    endif()
  endif()
  get_filename_component(MTCKI_CUDA_LIBDIR ${MTCKI_CUDART_LIBRARY} DIRECTORY)
  get_filename_component(MTCKI_CUDNN_LIBDIR ${MTCKI_CUDNN_LIBRARY} DIRECTORY)
  set(CMAKE_CUDA_COMPILER ${MTCKI_NVCC})
  set(CMAKE_CUDA_FLAGS_INIT "-L${MTCKI_CUDA_LIBDIR}")  # nvcc.profile names lib64, which wheels do not have
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  enable_language(CUDA)
  # CMake 3.25.1 (Debian 12) has no flag for CUDA20 with nvcc: CMAKE_CUDA_STANDARD 20 alone is dropped without a word, and with
  # CUDA_STANDARD_REQUIRED (or CXX_STANDARD_REQUIRED, which CUDA inherits) it is an error. Newer versions know the flag.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  # cudart's lib folder counts as an implicit link folder, so CMake leaves it out of the run path: add it by hand.
  list(APPEND CMAKE_INSTALL_RPATH ${MTCKI_CUDA_LIBDIR} ${MTCKI_CUDNN_LIBDIR})

  find_package(Threads REQUIRED)
  add_library(mtcki_cuda_cudart INTERFACE)
  target_include_directories(mtcki_cuda_cudart SYSTEM INTERFACE ${MTCKI_CUDART_INCLUDE})
  target_link_libraries(mtcki_cuda_cudart INTERFACE ${MTCKI_CUDART_LIBRARY} Threads::Threads ${CMAKE_DL_LIBS} rt)
  add_library(mtcki_cuda::cudart ALIAS mtcki_cuda_cudart)
  foreach(_l cublas cublasLt cudnn cupti)
    string(TOUPPER ${_l} _u)
    if(MTCKI_${_u}_LIBRARY)
      add_library(mtcki_cuda::${_l} UNKNOWN IMPORTED)
      set_target_properties(mtcki_cuda::${_l} PROPERTIES IMPORTED_LOCATION ${MTCKI_${_u}_LIBRARY}
                                                         INTERFACE_LINK_LIBRARIES mtcki_cuda::cudart)
    endif()
  endforeach()
  target_include_directories(mtcki_cuda::cudnn SYSTEM INTERFACE ${MTCKI_CUDNN_INCLUDE})
endif()

# The kernels that mtcki_cuda_absent lacks: a C++ file in which each function that the headers of kernels declare for CUDA
# throws. These are the functions *_cuda of *_kernels.h, and all of the namespaces mtcki::conv_cuda... of kernels alone. One
# that is missed here is an error of the linker.
function(_mtcki_absent_kernels file)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tensor/*_kernels.h)
  set(own ${CMAKE_SOURCE_DIR}/tensor/ops/conv/narrow_cuda.h ${CMAKE_SOURCE_DIR}/tensor/ops/conv/wgmma_cuda.h)
  set(includes "")
  set(functions "")
  foreach(header ${headers} ${own})
    set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${header})
    file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${header})
    file(READ ${header} text)
    string(REGEX REPLACE "//[^\n]*" "" text "${text}")
    string(REGEX REPLACE "\nMTCKI_KERNEL\\(([a-z0-9_]+), " "\nvoid \\1_cuda(" text "${text}")
    string(REPLACE ";" "@" text "${text}")  # a semicolon divides lists
    string(REGEX MATCH "\nnamespace (mtcki[a-z_:]*) {" _ "${text}")
    set(space ${CMAKE_MATCH_1})
    set(kernel "[a-z0-9_]+_cuda")
    if(space MATCHES "conv_cuda")
      set(kernel "[a-z0-9_]+")
    endif()
    string(REGEX MATCHALL "\n[A-Za-z_:]+ ${kernel}\\([^@{}]*\\)@" found "${text}")
    if(found)
      string(APPEND includes "#include \"${name}\"\n")
      string(REPLACE ";" "" found "${found}")
      string(REPLACE "@" " { absent(); }" found "${found}")
      string(APPEND functions "\nnamespace ${space} {${found}\n}  // namespace ${space}\n")
    endif()
  endforeach()
  file(CONFIGURE OUTPUT ${file} @ONLY CONTENT "// Made by cmake/MtckiCuda.cmake: the CUDA kernels of a build without CUDA.
@includes@#include \"tensor/error.h\"

#pragma GCC diagnostic ignored \"-Wunused-parameter\"

namespace {
[[noreturn]] void absent() { throw mtcki::DeviceError(\"this build has no CUDA kernels\"); }
}  // namespace
@functions@")
endfunction()

function(mtcki_cuda_backends)
  file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tensor/*.cu)
  # The same .cu file is CUDA in one target and C++ in the other; a language belongs to a file, hence a C++ file each.
  set(wrappers "")
  foreach(kernel ${kernels})
    file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${kernel})
    set(wrapper ${CMAKE_BINARY_DIR}/emulated/${name}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT
         "#include \"tests/emulated/device/simt.h\"\n#include \"${name}\"\n")
    set_property(SOURCE ${wrapper} APPEND PROPERTY OBJECT_DEPENDS ${kernel})
    list(APPEND wrappers ${wrapper})
  endforeach()
  # The largest of them, but for convolutions, whose tests compute much: two fifths less to compile.
  foreach(name elementwise norm norm_grad pool reduce softmax)
    set_source_files_properties(${CMAKE_BINARY_DIR}/emulated/tensor/ops/${name}_cuda.cu.cpp PROPERTIES
                                COMPILE_OPTIONS $<$<CONFIG:Release,RelWithDebInfo>:-O1> SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
  file(GLOB emulated CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/emulated/device/*.cpp)
  _mtcki_absent_kernels(${CMAKE_BINARY_DIR}/absent_kernels.cpp)
  add_library(mtcki_cuda_emulated STATIC EXCLUDE_FROM_ALL ${emulated} ${wrappers})
  add_library(mtcki_cuda_absent STATIC EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tensor/cuda/absent/device.cpp
                                                        ${CMAKE_BINARY_DIR}/absent_kernels.cpp)
  add_library(mtcki_cuda_asan STATIC EXCLUDE_FROM_ALL ${emulated} ${wrappers})
  target_precompile_headers(mtcki_cuda_emulated REUSE_FROM mtcki_headers)
  foreach(device mtcki_cuda_emulated mtcki_cuda_absent mtcki_cuda_asan)
    target_link_libraries(${device} PUBLIC mtcki_options OpenMP::OpenMP_CXX PRIVATE mtcki_tensor)
  endforeach()
  # bounds: arrays in shared memory, which AddressSanitizer does not surround.
  target_compile_options(mtcki_cuda_asan PUBLIC -fsanitize=address,bounds -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1)
  target_link_options(mtcki_cuda_asan PUBLIC -fsanitize=address,bounds)
  set(default mtcki_cuda_absent)
  if(MTCKI_WITH_CUDA)
    file(GLOB native CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tensor/cuda/native/*.cpp)
    # Kernels with instructions that sm_90 alone has, which sm_90a stands for; the program asks before it launches them.
    set(sm90a ${kernels})
    list(FILTER sm90a INCLUDE REGEX "_sm90a_cuda\\.cu$")
    list(REMOVE_ITEM kernels ${sm90a})
    add_library(mtcki_cuda_sm90a OBJECT ${sm90a})
    set_target_properties(mtcki_cuda_sm90a PROPERTIES CUDA_ARCHITECTURES 90a-real)
    target_link_libraries(mtcki_cuda_sm90a PRIVATE mtcki_options mtcki_cuda::cudart)
    add_library(mtcki_cuda_native STATIC ${native} ${kernels} $<TARGET_OBJECTS:mtcki_cuda_sm90a>)
    target_link_libraries(mtcki_cuda_native PUBLIC mtcki_options OpenMP::OpenMP_CXX mtcki_cuda::cudnn mtcki_cuda::cublasLt
                          PRIVATE mtcki_tensor nlohmann_json::nlohmann_json)
    if(MTCKI_CUPTI_LIBRARY)  # opened when a profile asks for it, never linked
      set_property(SOURCE ${CMAKE_SOURCE_DIR}/tensor/cuda/native/activity.cpp DIRECTORY ${CMAKE_SOURCE_DIR}
                   APPEND PROPERTY COMPILE_DEFINITIONS MTCKI_CUPTI_LIBRARY="${MTCKI_CUPTI_LIBRARY}")
    endif()
    # Lines of the sources for profilers and compute-sanitizer; they cost nothing when a kernel runs.
    foreach(device mtcki_cuda_sm90a mtcki_cuda_native)
      target_compile_options(${device} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo>)
    endforeach()
    set(default mtcki_cuda_native)
  endif()
  set_target_properties(${default} PROPERTIES EXCLUDE_FROM_ALL OFF)  # it is installed
  # A cycle of static libraries on purpose: ops call kernels, kernels read tensors.
  set(asked $<TARGET_PROPERTY:MTCKI_EMULATED_CUDA>)
  target_link_libraries(mtcki_tensor INTERFACE
    $<BUILD_INTERFACE:$<IF:$<STREQUAL:${asked},asan>,mtcki_cuda_asan,$<IF:$<BOOL:${asked}>,mtcki_cuda_emulated,${default}>>>
    $<INSTALL_INTERFACE:mtcki::cuda>)
  set_target_properties(mtcki_tensor PROPERTIES MTCKI_DEFAULT_CUDA ${default})
endfunction()
