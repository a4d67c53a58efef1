# mtcki_library(NAME [PUBLIC ...] [PRIVATE ...]): the static library of folder NAME and mtcki::NAME.
# Sources are globbed: adding a file needs no edit here. cli/ and the two CUDA devices
# have targets of their own.
function(mtcki_library name)
  cmake_parse_arguments(ARG "" "" "PUBLIC;PRIVATE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/cli/|/cuda/(native|emulated)/")
  if(NOT sources)
    message(FATAL_ERROR "mtcki_library(${name}): no sources")
  endif()
  add_library(mtcki_${name} STATIC ${sources})
  add_library(mtcki::${name} ALIAS mtcki_${name})
  set_target_properties(mtcki_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(mtcki_${name} PUBLIC mtcki_options ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()
