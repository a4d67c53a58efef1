# run(COMMAND...): ends the script with what the command printed when it fails.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "exit code ${code} of ${ARGN}:\n${out}${err}")
  endif()
endfunction()
