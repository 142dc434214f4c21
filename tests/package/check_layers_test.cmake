# SPDX-License-Identifier: MIT
# cmake -D CHECK=<check_layers.cmake> -D WORK_DIR=<folder> -P check_layers_test.cmake
# The layer check passes a good tree and fails, naming the header, on every tree with one wrong include.
cmake_policy(VERSION 3.25)

function(check_tree header text expect_pass)
  file(REMOVE_RECURSE ${WORK_DIR})
  file(WRITE ${WORK_DIR}/headwise/core/index.hpp "#pragma once\n#include <cstddef>\n")
  file(WRITE ${WORK_DIR}/headwise/${header} "#pragma once\n${text}\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -D INCLUDE_DIR=${WORK_DIR} -P ${CHECK}
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(expect_pass AND NOT result EQUAL 0)
    message(SEND_ERROR "failed on a good include: ${header}: ${text}\n${output}")
  elseif(NOT expect_pass AND (result EQUAL 0 OR NOT output MATCHES "${header}"))
    message(SEND_ERROR "did not name a bad include: ${header}: ${text}\n${output}")
  endif()
endfunction()

foreach(good "simd/a.hpp|#include \"headwise/core/index.hpp\"" "kernel/a.hpp|#include \"headwise/simd/b.hpp\""
             "attention/a.hpp|#include \"headwise/cache/b.hpp\"" "nn/a.hpp|#include <Eigen/Core>"
             "core/a.hpp|// #include \"headwise/nn/b.hpp\"" "regroup/a.hpp|#include <Eigen/Dense>"
             "regroup/a.hpp|#include \"headwise/nn/b.hpp\"" "headwise.hpp|#include \"headwise/attention/attention.hpp\"")
  string(REPLACE "|" ";" good ${good})
  list(GET good 0 header)
  list(GET good 1 text)
  check_tree(${header} "${text}" TRUE)
endforeach()

foreach(bad "core/a.hpp|#include \"headwise/simd/b.hpp\"" "simd/a.hpp|#include \"headwise/kernel/b.hpp\""
            "kernel/a.hpp|#include \"headwise/cache/b.hpp\"" "cache/a.hpp|#include \"headwise/kernel/b.hpp\""
            "cache/a.hpp|#include <headwise/kernel/b.hpp>" "score/a.hpp|  #  include \"headwise/cache/b.hpp\""
            "parallel/a.hpp|#include \"headwise/attention/b.hpp\"" "attention/a.hpp|#include \"headwise/simd/b.hpp\""
            "attention/a.hpp|#include \"headwise/nn/b.hpp\"" "reference.hpp|#include \"headwise/score/options.hpp\""
            "core/a.hpp|#include \"headwise/headwise.hpp\"" "cache/a.hpp|#include \"../kernel/b.hpp\""
            "nn/a.hpp|#include \"headwise/regroup/b.hpp\"" "cost/a.hpp|#include \"headwise/nn/b.hpp\""
            "core/a.hpp|#include <Eigen/Core>" "cost/a.hpp|#include <Eigen/Core>" "misc/a.hpp|#include <vector>")
  string(REPLACE "|" ";" bad ${bad})
  list(GET bad 0 header)
  list(GET bad 1 text)
  check_tree(${header} "${text}" FALSE)
endforeach()

file(REMOVE_RECURSE ${WORK_DIR})
execute_process(COMMAND ${CMAKE_COMMAND} -D INCLUDE_DIR=${WORK_DIR} -P ${CHECK} RESULT_VARIABLE result ERROR_QUIET)
if(result EQUAL 0)
  message(SEND_ERROR "passed on a tree without headers")
endif()
