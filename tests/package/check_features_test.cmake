# SPDX-License-Identifier: MIT
# cmake -D CHECK=<check_features.cmake> -D WORK_DIR=<folder> -P check_features_test.cmake
# The check of the features passes a good table and fails, naming the row, on every faulty one.
cmake_policy(VERSION 3.25)

function(check_table rows named)
  file(REMOVE_RECURSE ${WORK_DIR})
  file(WRITE ${WORK_DIR}/tests/a_test.cpp "TEST_P(Suite, Works) {}\nTEST(Other,\n     BreaksItsLine) {}\n")
  file(WRITE ${WORK_DIR}/features.md "# Features\n\n| feature | how | tests |\n|---|---|---|\n${rows}\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -D DOCUMENT=${WORK_DIR}/features.md -D TESTS_DIR=${WORK_DIR}/tests -P ${CHECK}
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(named STREQUAL "" AND NOT result EQUAL 0)
    message(SEND_ERROR "failed on a good table:\n${rows}\n${output}")
  elseif(NOT named STREQUAL "" AND (result EQUAL 0 OR NOT output MATCHES "${named}"))
    message(SEND_ERROR "did not say \"${named}\" of a faulty table:\n${rows}\n${output}")
  endif()
endfunction()

check_table("| a | `x` | `Suite.Works` |\n| b | | `Other.BreaksItsLine` `Suite.*` |" "")
check_table("| a | `Suite.Works` | |" "a: no test is named")
check_table("| a | | `Suite.Works` |\n| b | | Suite.Works |" "b: no test is named")
check_table("| a | | `Suite.Works` `Suite.DoesNot` |" "a: there is no test Suite.DoesNot")
check_table("| a | | `None.*` |" "a: there is no test None")
check_table("" "no rows")
file(REMOVE_RECURSE ${WORK_DIR})
