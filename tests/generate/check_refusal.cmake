# SPDX-License-Identifier: MIT
# cmake -DGENERATE=<program> -DARGUMENTS=<list> -DPATTERN=<regex> -P check_refusal.cmake
# The program must exit by itself with an error (a signal shows as words, a sanitizer's report in stderr), print nothing
# to stdout and say what is wrong on stderr.
include(${CMAKE_CURRENT_LIST_DIR}/run_generate.cmake)
run_generate(${ARGUMENTS})
if(NOT exit_code MATCHES "^[0-9]+$" OR exit_code EQUAL 0 OR exit_code GREATER 127)
  message(FATAL_ERROR "exit code ${exit_code} and an error was expected\n${output}\n${errors}")
endif()
if(NOT output STREQUAL "")
  message(FATAL_ERROR "stdout should be empty:\n${output}")
endif()
if(NOT errors MATCHES "${PATTERN}" OR errors MATCHES "Sanitizer|runtime error")
  message(FATAL_ERROR "stderr should match '${PATTERN}':\n${errors}")
endif()
