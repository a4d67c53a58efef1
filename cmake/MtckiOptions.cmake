# Flags that every target of the project gets, through the interface target mtcki_options.
add_library(mtcki_options INTERFACE)
target_include_directories(mtcki_options INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>)
target_compile_features(mtcki_options INTERFACE cxx_std_20)
# Flags of the host compiler; nvcc gets the warnings through -Xcompiler. Users of the installed libraries get no
# warnings, but the flags below: headers hold code that depends on them.
set(_cxx $<COMPILE_LANGUAGE:CXX>)
# Designated initialisers name what differs from the default, and mean the rest to stay at it.
target_compile_options(mtcki_options INTERFACE
                       $<BUILD_INTERFACE:$<${_cxx}:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wno-missing-field-initializers>>
                       $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 warns falsely on std::string concatenation (GCC bug 105651). Vectors wider than the registers of MTCKI_ARCH
  # (tensor/kernels/simd.h) are passed between inlined functions only, so their calling convention does not matter.
  target_compile_options(mtcki_options INTERFACE $<BUILD_INTERFACE:$<${_cxx}:-Wno-restrict;-Wno-psabi>>)
endif()
if(MTCKI_ARCH)
  # PUBLIC for the whole project: the channel block of blocked layouts follows the vector width.
  target_compile_options(mtcki_options INTERFACE $<${_cxx}:-march=${MTCKI_ARCH}>
                         $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=${MTCKI_ARCH}>)
endif()
# Same results whatever the compiler folds: no value-changing float optimisation.
target_compile_options(mtcki_options INTERFACE $<${_cxx}:-fno-fast-math;-ffp-contract=fast>)
if(MTCKI_SANITIZE)
  target_compile_options(mtcki_options INTERFACE
                         $<${_cxx}:-fsanitize=${MTCKI_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
  target_link_options(mtcki_options INTERFACE -fsanitize=${MTCKI_SANITIZE})
endif()
# What reads files that may be hostile checks more at run time: mtcki_harden(TARGET). Nothing of it in kernels.
function(mtcki_harden target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # Two more false warnings on std::string (GCC bugs 105329 and 105651), which the checks bring about.
    target_compile_options(${target} PRIVATE -Wno-stringop-overflow -Wno-array-bounds)
  endif()
  if(NOT MTCKI_SANITIZE)  # sanitizers have checks of their own
    target_compile_options(${target} PRIVATE -fstack-protector-strong
                           "$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>" -D_GLIBCXX_ASSERTIONS)
  endif()
endfunction()
# Code in which no step spends its time: mtcki_compile_quickly(TARGET SCOPE [LEVEL]) takes two fifths off the time that it
# takes to compile, and with LEVEL -O0, for tests, a fourth more. GCC takes the level of a precompiled header over that of
# the file that includes it, so both must have it.
function(mtcki_compile_quickly target scope)
  set(level ${ARGN} -O1)
  list(GET level 0 level)
  target_compile_options(${target} ${scope} $<$<CONFIG:Release,RelWithDebInfo>:${level}>)
endfunction()
# Addresses of library functions are bound at the start and read-only from then on.
target_link_options(mtcki_options INTERFACE -Wl,-z,relro -Wl,-z,now)
# Whether single programs can be built under AddressSanitizer (tests/CMakeLists.txt); all of them are with MTCKI_SANITIZE.
set(CMAKE_REQUIRED_FLAGS -fsanitize=address,bounds)
check_cxx_source_compiles("int main() {}" MTCKI_HAS_ASAN)
unset(CMAKE_REQUIRED_FLAGS)
