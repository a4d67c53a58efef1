# cmake --install BUILD --prefix P: the program, the libraries, their headers, and a package for find_package(mtcki).
#   P/bin/mtcki   P/lib/libmtcki_*.a   P/lib/cmake/mtcki/   P/include/mtcki/{tensor,autograd,nn,optim,data,mtcki}/*.h
# Of the CUDA devices the one that programs get by default: the real one, or without CUDA the one that is never there.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/mtcki)
set(_headers ${CMAKE_INSTALL_INCLUDEDIR}/mtcki)

get_target_property(_cuda mtcki_tensor MTCKI_DEFAULT_CUDA)
set_target_properties(mtcki_options PROPERTIES EXPORT_NAME options)
set_target_properties(${_cuda} PROPERTIES EXPORT_NAME cuda)
target_include_directories(mtcki_options INTERFACE $<INSTALL_INTERFACE:${_headers}>)

install(TARGETS mtcki_options mtcki_tensor mtcki_autograd mtcki_nn mtcki_optim mtcki_data mtcki_mtcki ${_cuda}
        EXPORT mtcki_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS mtcki_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
include(MtckiPackage)
mtcki_package(mtcki_cli)
foreach(_folder tensor autograd nn optim data mtcki)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/${_folder} DESTINATION ${_headers} FILES_MATCHING PATTERN "*.h"
          PATTERN cli EXCLUDE PATTERN native EXCLUDE PATTERN fashion-mnist EXCLUDE)
endforeach()
install(FILES ${CMAKE_SOURCE_DIR}/mtcki.h DESTINATION ${_headers})
install(EXPORT mtcki_targets NAMESPACE mtcki:: DESTINATION ${_package} FILE mtcki-targets.cmake)

# The CUDA libraries lie where they were found; consumers need no CUDA compiler.
set(MTCKI_CUDA_PACKAGE "")
if(MTCKI_WITH_CUDA)
  foreach(_l cublas cublasLt cudnn cupti nccl)
    if(TARGET mtcki_cuda::${_l})
      get_target_property(_file mtcki_cuda::${_l} IMPORTED_LOCATION)
      string(APPEND MTCKI_CUDA_PACKAGE "_mtcki_cuda_library(${_l} \"${_file}\")\n")
    endif()
  endforeach()
endif()
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/mtcki-config.cmake.in ${CMAKE_BINARY_DIR}/mtcki-config.cmake
                              INSTALL_DESTINATION ${_package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/mtcki-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/mtcki-config.cmake ${CMAKE_BINARY_DIR}/mtcki-config-version.cmake
              ${CMAKE_SOURCE_DIR}/cmake/FindDNNL.cmake ${CMAKE_SOURCE_DIR}/cmake/Findtomlplusplus.cmake
        DESTINATION ${_package})
