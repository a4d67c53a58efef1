# Facts of the build for `mtcki info`: only build_info.cpp is compiled again when they change.
set(MTCKI_GIT "unknown")
find_package(Git QUIET)
if(GIT_FOUND AND EXISTS ${CMAKE_SOURCE_DIR}/.git)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=12 --exclude=*
                  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE MTCKI_GIT
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(EXISTS ${CMAKE_SOURCE_DIR}/.git/logs/HEAD)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/.git/logs/HEAD)
  endif()
endif()
string(TOUPPER "${CMAKE_BUILD_TYPE}" _type)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${_type}}" _flags)
if(MTCKI_ARCH)
  string(APPEND _flags " -march=${MTCKI_ARCH}")
endif()
if(MTCKI_SANITIZE)
  string(APPEND _flags " -fsanitize=${MTCKI_SANITIZE}")
endif()
set_property(SOURCE ${CMAKE_SOURCE_DIR}/mtcki/host/build_info.cpp TARGET_DIRECTORY mtcki_mtcki APPEND PROPERTY
  COMPILE_DEFINITIONS MTCKI_VERSION="${PROJECT_VERSION}" MTCKI_GIT="${MTCKI_GIT}"
  MTCKI_BUILD_TYPE="${CMAKE_BUILD_TYPE}" MTCKI_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
  MTCKI_FLAGS="${_flags}" MTCKI_ARCH="${MTCKI_ARCH}")
