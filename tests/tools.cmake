# Programs beside the tests, and the CTest entries that run them.

# golden_check: cases computed by another framework (docs/golden-files.md).
add_executable(golden_check golden/golden_check.cpp golden/golden_check_ops.cpp golden/golden_check_functions.cpp
               golden/golden_check_model.cpp)
target_link_libraries(golden_check PRIVATE mtcki_testing)
target_precompile_headers(golden_check REUSE_FROM mtcki_testing_headers)
set_target_properties(golden_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests UNITY_BUILD ${MTCKI_UNITY})
set(golden_dir ${CMAKE_CURRENT_SOURCE_DIR}/data/golden)
set(golden_files ${golden_dir}/ops_f32.safetensors ${golden_dir}/ops_f64.safetensors
    ${golden_dir}/model_resnet8.safetensors ${golden_dir}/model_small.safetensors
    ${golden_dir}/model_families.safetensors)
add_test(NAME golden_files COMMAND golden_check ${golden_files})
add_test(NAME golden_files_builtin COMMAND golden_check --kernels builtin ${golden_files})
if(MTCKI_WITH_ONEDNN)
  add_test(NAME golden_files_onednn COMMAND golden_check --kernels onednn ${golden_files})
endif()
# Faults must be found and told apart: exit code 1 above tolerance, 2 for usage, 3 for a bad file.
# Networks from ONNX, exported and computed by PyTorch (scripts/onnx_vs_torch --fixtures).
add_test(NAME golden_onnx COMMAND golden_check --tolerance 1e-4 ${CMAKE_CURRENT_SOURCE_DIR}/data/onnx/golden.safetensors)

function(mtcki_golden_fault name code text)
  add_test(NAME golden_fault_${name}
           COMMAND ${CMAKE_COMMAND} -DCODE=${code} -DTEXT=${text} "-DCOMMAND=$<TARGET_FILE:golden_check>;${ARGN}"
                   -P ${CMAKE_CURRENT_SOURCE_DIR}/expect_exit.cmake)
endfunction()
mtcki_golden_fault(wrong_gradient 1 "FAIL conv3x3/grad_in1" ${golden_dir}/wrong.safetensors)
mtcki_golden_fault(unknown_op 2 "unknown op 'fold'" ${golden_dir}/unknown_op.safetensors)
mtcki_golden_fault(no_metadata 3 "belongs to no case" ${golden_dir}/no_metadata.safetensors)
mtcki_golden_fault(no_safetensors 3 "tools.cmake" ${CMAKE_CURRENT_SOURCE_DIR}/tools.cmake)
mtcki_golden_fault(missing_file 3 "absent.safetensors" ${golden_dir}/absent.safetensors)
mtcki_golden_fault(no_file 2 "usage")

# device_properties: the description of a GPU that cuDNN can be asked about without it.
if(MTCKI_WITH_CUDA)
  add_executable(device_properties tensor/device_properties.cpp)
  target_link_libraries(device_properties PRIVATE mtcki::tensor mtcki_cuda::cudnn)
  set_target_properties(device_properties PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME device_properties_of_a_description
           COMMAND device_properties ${CMAKE_BINARY_DIR}/tests/h200.json ${CMAKE_CURRENT_SOURCE_DIR}/data/devices/h200.json)
endif()

# Fuzz targets of the file parsers (clang only).
if(MTCKI_BUILD_FUZZERS)
  add_subdirectory(fuzz)
endif()

include(${CMAKE_CURRENT_SOURCE_DIR}/mpi.cmake)

# cmake --install, and a project that finds the package.
add_test(NAME install_and_find_package
         COMMAND ${CMAKE_COMMAND} -DBUILD=${CMAKE_BINARY_DIR} -DSOURCE=${CMAKE_SOURCE_DIR} -DCONFIG=$<CONFIG>
                 -DCXX=${CMAKE_CXX_COMPILER} -DGENERATOR=${CMAKE_GENERATOR} -P ${CMAKE_CURRENT_SOURCE_DIR}/install.cmake)
set_tests_properties(install_and_find_package PROPERTIES TIMEOUT 600)

# No program looks for libraries in the working directory, which may be a folder that somebody else filled.
find_program(MTCKI_READELF readelf)
add_test(NAME program_is_hardened
         COMMAND ${CMAKE_COMMAND} -DREADELF=${MTCKI_READELF} -DSANITIZE=${MTCKI_SANITIZE}
                 "-DPROGRAMS=$<TARGET_FILE:mtcki_cli>;$<TARGET_FILE:golden_check>"
                 -P ${CMAKE_CURRENT_SOURCE_DIR}/hardened.cmake)
add_test(NAME container_recipe
         COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_SOURCE_DIR} -DPROGRAM=$<TARGET_FILE:mtcki_cli> -DREADELF=${MTCKI_READELF}
                 -DCACHE=${CMAKE_BINARY_DIR}/CMakeCache.txt -DOUT=${CMAKE_BINARY_DIR}/tests/container
                 -P ${CMAKE_CURRENT_SOURCE_DIR}/container.cmake)
set_tests_properties(program_is_hardened PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:")

# Kills, damages and full disks, a few of each; before a release: scripts/torture --counts release.
find_program(MTCKI_PYTHON NAMES python3 python)
if(MTCKI_PYTHON)
  add_test(NAME torture_short COMMAND ${MTCKI_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/torture --counts short --jobs 2
                                      --binary $<TARGET_FILE:mtcki_cli>)
  set_tests_properties(torture_short PROPERTIES PROCESSORS 2 TIMEOUT 600)
  add_test(NAME docs_python COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:mtcki_cli> -DPYTHON=${MTCKI_PYTHON}
           -DSOURCE=${CMAKE_SOURCE_DIR} -DOUT=${CMAKE_BINARY_DIR}/tests/python -P ${CMAKE_CURRENT_SOURCE_DIR}/docs_python.cmake)
  add_test(NAME results_of_methods_vs_torch
           COMMAND ${MTCKI_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/methods_vs_torch --check ${CMAKE_SOURCE_DIR}/docs/results.md)
endif()

include(${CMAKE_CURRENT_SOURCE_DIR}/docs.cmake)
