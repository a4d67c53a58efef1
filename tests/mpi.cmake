# Tests of jobs of several processes (tests/mpi/): CTest names mpi.*, label mpi. Two ranks on two cores
# beside other tests: one thread each, not bound, waiting ranks yield.
if(NOT MTCKI_WITH_MPI)
  add_test(NAME mpi COMMAND ${CMAKE_COMMAND} -E echo "skipped: MPI is ${MTCKI_MPI_TEXT}")
  set_tests_properties(mpi PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:" LABELS mpi)
  return()
endif()

set(mtcki_mpirun ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} 2)
if(MTCKI_OPEN_MPI)
  list(APPEND mtcki_mpirun --oversubscribe --allow-run-as-root --bind-to none
       --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none)
endif()

function(mtcki_mpi_test name)
  add_test(NAME mpi.${name} COMMAND ${mtcki_mpirun} ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_property(GLOBAL APPEND PROPERTY mtcki_mpi_tests mpi.${name})
endfunction()
# A job that must end with this exit code and this text, soon.
function(mtcki_mpi_exit name code text)
  add_test(NAME mpi.${name}
           COMMAND ${CMAKE_COMMAND} -DCODE=${code} -DTEXT=${text} "-DCOMMAND=${mtcki_mpirun};${ARGN}"
                   -P ${CMAKE_CURRENT_SOURCE_DIR}/expect_exit.cmake
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_property(GLOBAL APPEND PROPERTY mtcki_mpi_tests mpi.${name})
endfunction()

file(GLOB mpi_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/mpi/*.cpp)
list(FILTER mpi_sources EXCLUDE REGEX "/(fail_on_rank|compare_runs|device_cuda)\\.cpp$")
add_executable(mpi_check ${mpi_sources})
target_link_libraries(mpi_check PRIVATE mtcki_testing)
target_precompile_headers(mpi_check REUSE_FROM mtcki_testing_headers)
add_executable(fail_on_rank mpi/fail_on_rank.cpp)
target_link_libraries(fail_on_rank PRIVATE mtcki::tensor)
set_target_properties(mpi_check fail_on_rank PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

foreach(suite Communicator ParallelFunctions ParallelTraining ParallelInversion)
  mtcki_mpi_test(${suite} $<TARGET_FILE:mpi_check> --gtest_filter=${suite}.*)
endforeach()
# On the emulated GPU: device memory goes through the host, or travels as work of streams, as NCCL does it.
if(MTCKI_BUILD_EMULATED_TESTS)
  add_executable(emulated_mpi_check mpi/main.cpp mpi/device_cuda.cpp)
  target_link_libraries(emulated_mpi_check PRIVATE mtcki_testing)
  target_precompile_headers(emulated_mpi_check REUSE_FROM mtcki_testing_headers)
  set_target_properties(emulated_mpi_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests
                        MTCKI_EMULATED_CUDA ON)
  mtcki_mpi_test(emulated_gpu $<TARGET_FILE:emulated_mpi_check> --gtest_filter=-ParallelNccl.*)
  mtcki_mpi_test(emulated_nccl $<TARGET_FILE:emulated_mpi_check> --gtest_filter=-ParallelHost.*)
endif()

# The program: every stage on two ranks against one process.
add_executable(compare_runs mpi/compare_runs.cpp)
target_link_libraries(compare_runs PRIVATE mtcki::mtcki)
set_target_properties(compare_runs PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME mpi.program
         COMMAND ${CMAKE_COMMAND} "-DMPIRUN=${mtcki_mpirun}" -DMTCKI=$<TARGET_FILE:mtcki_cli>
                 -DCOMPARE=$<TARGET_FILE:compare_runs> -DOUT=${CMAKE_BINARY_DIR}/tests/mpi-runs
                 -DCONFIG=${CMAKE_CURRENT_SOURCE_DIR}/mpi/tiny.toml
                 -P ${CMAKE_CURRENT_SOURCE_DIR}/mpi/program.cmake)
mtcki_mpi_exit(batch_not_divisible 2 "train.batch_size is 33" $<TARGET_FILE:mtcki_cli> train
               ${CMAKE_CURRENT_SOURCE_DIR}/mpi/tiny.toml train.batch_size=33 device=cpu)
set_property(GLOBAL APPEND PROPERTY mtcki_mpi_tests mpi.program)
if(TARGET mtcki_emulated)
  mtcki_mpi_exit(graph_without_nccl 2 "captured with NCCL only" $<TARGET_FILE:mtcki_emulated> train
                 ${CMAKE_CURRENT_SOURCE_DIR}/mpi/tiny_cuda.toml device=cuda graph=on)
  add_test(NAME mpi.emulated_program
           COMMAND ${CMAKE_COMMAND} "-DMPIRUN=${mtcki_mpirun}" -DMTCKI=$<TARGET_FILE:mtcki_emulated>
                   -DCOMPARE=$<TARGET_FILE:compare_runs> -DOUT=${CMAKE_BINARY_DIR}/tests/mpi-runs-cuda
                   -DCONFIG=${CMAKE_CURRENT_SOURCE_DIR}/mpi/tiny_cuda.toml
                   -P ${CMAKE_CURRENT_SOURCE_DIR}/mpi/program_cuda.cmake)
  set_property(GLOBAL APPEND PROPERTY mtcki_mpi_tests mpi.emulated_program)
endif()

foreach(rank 0 1)
  mtcki_mpi_exit(error_on_rank_${rank} 3 "the file is damaged" $<TARGET_FILE:fail_on_rank> ${rank})
endforeach()

get_property(mpi_tests GLOBAL PROPERTY mtcki_mpi_tests)
# Leaks: Open MPI never frees some blocks, and what allocated them is unloaded when they are reported.
set_tests_properties(${mpi_tests} PROPERTIES LABELS mpi TIMEOUT 300 PROCESSORS 2
                     ENVIRONMENT "OMP_NUM_THREADS=1;MTCKI_EMULATE_CUDA=1;ASAN_OPTIONS=detect_leaks=0")
foreach(test mpi.emulated_nccl mpi.emulated_program)
  if(TEST ${test})
    set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT MTCKI_EMULATE_NCCL=1)
  endif()
endforeach()
