# cmake -DCOMMAND=... -DCODE=N -DTEXT=... -P expect_exit.cmake: the command must exit with N and its
# output must contain TEXT.
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
set(out "${out}${err}")
string(FIND "${out}" "${TEXT}" at)
if(NOT code EQUAL CODE)
  message(FATAL_ERROR "exit code ${code}, expected ${CODE}. Output:\n${out}")
endif()
if(at EQUAL -1)
  message(FATAL_ERROR "the output lacks '${TEXT}':\n${out}")
endif()
