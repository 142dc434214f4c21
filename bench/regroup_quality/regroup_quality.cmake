# SPDX-License-Identifier: MIT
# Tests of the program and of the scripts around it: fetch_texts, run.py, draw.py.
option(HEADWISE_EVIDENCE_TEST "Test on a real model what is said of conversions: some minutes, needs smollm2_model and
  bench/regroup_quality/fetch_texts" OFF)
if(HEADWISE_BUILD_TESTS AND TARGET headwise_llama)
  set(tiny ${PROJECT_BINARY_DIR}/tests/generate/tiny.gguf)
  set(tiny_text ${CMAKE_CURRENT_BINARY_DIR}/tiny_text.txt)
  string(REPEAT "the thin thing in the inn, the other in the tin; " 100 text)
  file(WRITE ${tiny_text} "${text}")
  add_test(NAME regroup_quality_smoke COMMAND regroup_quality --model ${tiny} --text tiny=${tiny_text} --tokens 24 --context 12
                                              --calibration-tokens 12)
  set_tests_properties(regroup_quality_smoke PROPERTIES
    FIXTURES_REQUIRED generate_tiny_model FAIL_REGULAR_EXPRESSION "null|nan" PASS_REGULAR_EXPRESSION "\"event\":\"done\"")
  add_test(NAME regroup_quality_refuses_a_short_text
           COMMAND regroup_quality --model ${tiny} --text tiny=${tiny_text} --tokens 100000)
  set_tests_properties(regroup_quality_refuses_a_short_text PROPERTIES
    FIXTURES_REQUIRED generate_tiny_model PASS_REGULAR_EXPRESSION "must be longer for 100000 tokens")
  if(HEADWISE_EVIDENCE_TEST)
    set(texts ${PROJECT_SOURCE_DIR}/build/texts)
    add_test(NAME regroup_quality_evidence
             COMMAND regroup_quality --model ${HEADWISE_SMOLLM2} --text bible=${texts}/bible.txt --text perl=${texts}/perl.txt
                     --tokens 128 --context 128 --calibration-tokens 256 --check)
    set_tests_properties(regroup_quality_evidence PROPERTIES LABELS model PROCESSORS 2 TIMEOUT 900)
  endif()
endif()
if(HEADWISE_BUILD_TESTS)
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_Interpreter_FOUND)
    # Exits with 77 where there is no tqdm or no matplotlib.
    add_test(NAME regroup_quality_scripts
             COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_LIST_DIR}/test_scripts.py)
    set_tests_properties(regroup_quality_scripts PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
  endif()
endif()
