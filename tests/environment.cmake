# Read by ctest before it runs anything. Tests run beside each other and each uses two threads: waiting threads must sleep,
# not spin.
if(NOT DEFINED ENV{OMP_NUM_THREADS})
  set(ENV{OMP_NUM_THREADS} 2)
endif()
# A run writes through to the disk what it must not lose, thousands of times in the tests: temporary files in memory,
# where there is room and programs may be run from.
if(NOT DEFINED ENV{TMPDIR})
  execute_process(COMMAND sh -c "cp /bin/true /dev/shm/mtcki-$$ && /dev/shm/mtcki-$$; code=$?; rm -f /dev/shm/mtcki-$$
                                 [ $code = 0 ] && [ $(df --output=avail /dev/shm | tail -1) -gt 4000000 ]"
                  RESULT_VARIABLE _no_memory ERROR_QUIET)
  if(NOT _no_memory)
    set(ENV{TMPDIR} /dev/shm)
  endif()
endif()
if(NOT DEFINED ENV{OMP_WAIT_POLICY})
  set(ENV{OMP_WAIT_POLICY} passive)
endif()
