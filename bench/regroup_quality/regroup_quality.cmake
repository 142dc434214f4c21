# SPDX-License-Identifier: MIT
# The scripts around the program: fetch_texts, run.py, draw.py.
if(HEADWISE_BUILD_TESTS)
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_Interpreter_FOUND)
    # Exits with 77 where there is no tqdm or no matplotlib.
    add_test(NAME regroup_quality_scripts
             COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_LIST_DIR}/test_scripts.py)
    set_tests_properties(regroup_quality_scripts PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
  endif()
endif()
