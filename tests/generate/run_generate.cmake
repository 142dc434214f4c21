# SPDX-License-Identifier: MIT
string(REPLACE "|" ";" ARGUMENTS "${ARGUMENTS}")
string(REPLACE "|" ";" EMULATOR "${EMULATOR}")

# run_generate(<argument>...): runs the program; sets exit_code, output and errors.
# EMULATOR is what runs it in a cross build.
function(run_generate)
  execute_process(COMMAND ${EMULATOR} ${GENERATE} ${ARGN}
                  RESULT_VARIABLE exit_code OUTPUT_VARIABLE output ERROR_VARIABLE errors)
  foreach(name exit_code output errors)
    set(${name} "${${name}}" PARENT_SCOPE)
  endforeach()
endfunction()

# run_well(<argument>...): the same, and it must succeed.
macro(run_well)
  run_generate(${ARGN})
  if(NOT exit_code STREQUAL "0")
    message(FATAL_ERROR "exit code ${exit_code}\n${output}\n${errors}")
  endif()
endmacro()

# ids_of(<out> <prompt|token>): the list of ids on the one line "<name> ids: ..." of `output`.
function(ids_of out name)
  string(REGEX MATCHALL "\n${name} ids:[^\n]*\n" lines "\n${output}")
  list(LENGTH lines count)
  if(NOT count EQUAL 1)
    message(FATAL_ERROR "${count} lines begin with '${name} ids:' and one was expected:\n${output}")
  endif()
  string(REGEX REPLACE "\n${name} ids:( ?)([0-9 ]*)\n" "\\2" ids "${lines}")
  string(REPLACE " " ";" ids "${ids}")
  set(${out} "${ids}" PARENT_SCOPE)
endfunction()
