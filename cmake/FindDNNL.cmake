# oneDNN without its own CMake config, which aborts the configure where OpenCL headers are missing.
# Sets MTCKI_WITH_ONEDNN, DNNL_VERSION and the target DNNL::dnnl.
set(MTCKI_WITH_ONEDNN OFF)
if(NOT MTCKI_ONEDNN STREQUAL "OFF")
  find_path(DNNL_INCLUDE_DIR NAMES oneapi/dnnl/dnnl.hpp)
  find_library(DNNL_LIBRARY NAMES dnnl)
  if(DNNL_INCLUDE_DIR AND DNNL_LIBRARY)
    file(STRINGS ${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h lines REGEX "define DNNL_VERSION_(MAJOR|MINOR|PATCH)")
    string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" DNNL_VERSION "${lines}")
    add_library(DNNL::dnnl UNKNOWN IMPORTED)
    set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
                          INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
    set(MTCKI_WITH_ONEDNN ON)
  elseif(MTCKI_ONEDNN STREQUAL "ON")
    message(FATAL_ERROR "MTCKI_ONEDNN=ON, but oneDNN was not found. Install libdnnl-dev, or set DNNL_INCLUDE_DIR and DNNL_LIBRARY.")
  endif()
endif()
