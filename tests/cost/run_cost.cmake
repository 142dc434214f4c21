# SPDX-License-Identifier: MIT
# cmake -DCOST=<program> -DEMULATOR=<list> -DARGUMENTS=<list> -DPATTERNS=<list> [-DREFUSED=1] -P run_cost.cmake
# Runs the example; its output must match each pattern, where a space stands for any number of them. With REFUSED it must
# exit by itself with an error (a signal shows as words), print nothing to stdout, and stderr must match. Lists are written
# with | between their elements.
foreach(list ARGUMENTS EMULATOR PATTERNS)
  string(REPLACE "|" ";" ${list} "${${list}}")
endforeach()
execute_process(COMMAND ${EMULATOR} ${COST} ${ARGUMENTS}
                RESULT_VARIABLE exit_code OUTPUT_VARIABLE output ERROR_VARIABLE errors)
set(report "exit code ${exit_code}\nstdout: ${output}\nstderr: ${errors}")
if(REFUSED)
  if(NOT exit_code MATCHES "^[0-9]+$" OR exit_code EQUAL 0 OR exit_code GREATER 127 OR NOT output STREQUAL "")
    message(FATAL_ERROR "an error and nothing else was expected\n${report}")
  endif()
  set(output "${errors}")
elseif(NOT exit_code STREQUAL "0" OR NOT errors STREQUAL "")
  message(FATAL_ERROR "success was expected\n${report}")
endif()
if(errors MATCHES "Sanitizer|runtime error")
  message(FATAL_ERROR "${errors}")
endif()
string(REGEX REPLACE " +" " " output "${output}")
foreach(pattern IN LISTS PATTERNS)
  if(NOT output MATCHES "${pattern}")
    message(FATAL_ERROR "the output should match '${pattern}'\n${report}")
  endif()
endforeach()
