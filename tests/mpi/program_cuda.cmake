# cmake -DMPIRUN=... -DMTCKI=... -DCOMPARE=... -DOUT=... -DCONFIG=... -P program_cuda.cmake
# Every stage on two ranks with a GPU each: captured steps leave the bits of eager ones.
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)
file(REMOVE_RECURSE ${OUT})
foreach(graph off on)
  run(${MPIRUN} ${MTCKI} run ${CONFIG} device=cuda graph=${graph} out=${OUT} name=${graph})
endforeach()
foreach(teacher resnet8 wrn10_1)
  run(${COMPARE} ${OUT}/on/teachers/${teacher} ${OUT}/off/teachers/${teacher} model.safetensors 0)
endforeach()
run(${COMPARE} ${OUT}/on/synth ${OUT}/off/synth shard-00000.safetensors 0)
run(${COMPARE} ${OUT}/on/students/resnet8 ${OUT}/off/students/resnet8 model.safetensors 0)
