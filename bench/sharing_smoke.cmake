# SPDX-License-Identifier: MIT
# Runs a tiny model: every output must agree with the reference, and the bytes must be what the sharing says. No time is
# looked at.
#   cmake -DSHARING=program -DFOLDER=scratch -P sharing_smoke.cmake
file(REMOVE_RECURSE ${FOLDER})
file(MAKE_DIRECTORY ${FOLDER})
foreach(storage f32 f16 bf16)
  execute_process(COMMAND ${SHARING} --smoke --storage ${storage} --json ${FOLDER}/smoke.json OUTPUT_VARIABLE table
                  COMMAND_ERROR_IS_FATAL ANY)
  file(READ ${FOLDER}/smoke.json json)
  string(JSON cases LENGTH "${json}" cases)
  if(NOT cases EQUAL 3)
    message(FATAL_ERROR "the JSON file has ${cases} cases, expected none, cla2 and cla3")
  endif()
  string(JSON read_by_all GET "${json}" cases 0 bytes_read_per_step)
  foreach(i RANGE 2)
    foreach(name sharing producers cache_bytes bytes_written_per_step bytes_read_per_step error error_limit)
      string(JSON ${name} GET "${json}" cases ${i} ${name})
    endforeach()
    string(JSON samples LENGTH "${json}" cases ${i} samples)
    math(EXPR layers "6 / (${i} + 1)")
    if(storage STREQUAL "f32")
      set(bytes 4)
    else()
      set(bytes 2)
    endif()
    # 2 KV heads of 64 + 64 dims; 201 tokens take 4 tiles of 64
    math(EXPR written "${layers} * 2 * 128 * ${bytes}")
    math(EXPR capacity "${written} * 256")
    math(EXPR read "6 * 2 * 128 * ${bytes} * 201")
    if(NOT producers EQUAL layers OR NOT bytes_written_per_step EQUAL written OR NOT cache_bytes EQUAL capacity
       OR NOT bytes_read_per_step EQUAL read)
      message(FATAL_ERROR "${sharing}, ${storage}: ${producers} producers, ${cache_bytes} bytes, ${bytes_written_per_step} "
                          "written, ${bytes_read_per_step} read; expected ${layers}, ${capacity}, ${written}, ${read}")
    endif()
    if(samples EQUAL 0 OR NOT error LESS_EQUAL error_limit)
      message(FATAL_ERROR "${sharing}, ${storage}: ${samples} samples, error ${error} of at most ${error_limit}")
    endif()
    if(NOT table MATCHES "${sharing} ")
      message(FATAL_ERROR "no line of ${sharing}:\n${table}")
    endif()
  endforeach()
endforeach()
message(STATUS "none, cla2 and cla3 verified")
