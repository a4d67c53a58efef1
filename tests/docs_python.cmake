# The Python of docs/file-formats.md, on a run of configs/synth10-tiny.toml.
file(REMOVE_RECURSE ${OUT})
execute_process(COMMAND ${PROGRAM} -q run ${SOURCE}/configs/synth10-tiny.toml out=${OUT}/runs name=demo
                OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(READ ${SOURCE}/docs/file-formats.md page)
string(REGEX MATCH "```python\n([^`]*)```" block "${page}")
file(WRITE ${OUT}/block.py "${CMAKE_MATCH_1}")
execute_process(COMMAND ${PYTHON} block.py WORKING_DIRECTORY ${OUT} OUTPUT_VARIABLE out COMMAND_ERROR_IS_FATAL ANY)
if(NOT out MATCHES "^4 batches of .16, 3, 32, 32.\n.*student/u 4[.]0 [0-9]")
  message(FATAL_ERROR "${out}")
endif()
