# Flags that every target of the project gets, through the interface target mtcki_options.
add_library(mtcki_options INTERFACE)
target_include_directories(mtcki_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(mtcki_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 warns falsely on std::string concatenation (GCC bug 105651).
  target_compile_options(mtcki_options INTERFACE -Wno-restrict)
endif()
if(MTCKI_ARCH)
  # PUBLIC for the whole project: the channel block of blocked layouts follows the vector width.
  target_compile_options(mtcki_options INTERFACE -march=${MTCKI_ARCH})
endif()
# Same results whatever the compiler folds: no value-changing float optimisation.
target_compile_options(mtcki_options INTERFACE -fno-fast-math -ffp-contract=fast)
if(MTCKI_SANITIZE)
  target_compile_options(mtcki_options INTERFACE -fsanitize=${MTCKI_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(mtcki_options INTERFACE -fsanitize=${MTCKI_SANITIZE})
endif()
