# SPDX-License-Identifier: MIT
# Runs tiny cases of the comparison: each must agree with the reference, and table and JSON must hold every one of them.
# No time is looked at. Where Python has matplotlib, the plots are drawn as well.
#   cmake -DCOMPARE=program -DPYTHON=interpreter-or-empty -DFOLDER=scratch -P compare_smoke.cmake
file(REMOVE_RECURSE ${FOLDER})
file(MAKE_DIRECTORY ${FOLDER})

execute_process(COMMAND ${COMPARE} --smoke --list OUTPUT_VARIABLE names COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${COMPARE} --smoke --json ${FOLDER}/smoke.json OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" names "${names}")
list(LENGTH names expected)
if(expected EQUAL 0)
  message(FATAL_ERROR "compare --smoke --list names no case")
endif()

string(REGEX MATCHALL "[0-9.]+%" rows "${table}")
list(LENGTH rows rows)
if(NOT rows EQUAL expected)
  message(FATAL_ERROR "the table has ${rows} rows, expected ${expected}:\n${table}")
endif()

file(READ ${FOLDER}/smoke.json json)
string(JSON isa GET "${json}" machine isa)
string(JSON cases LENGTH "${json}" cases)
if(NOT cases EQUAL expected)
  message(FATAL_ERROR "the JSON file has ${cases} cases, expected ${expected}")
endif()
foreach(i RANGE 1 ${expected})
  math(EXPR i "${i} - 1")
  list(GET names ${i} name)
  string(JSON written GET "${json}" cases ${i} name)
  string(JSON samples LENGTH "${json}" cases ${i} samples)
  string(JSON error GET "${json}" cases ${i} error)
  string(JSON limit GET "${json}" cases ${i} error_limit)
  if(NOT written STREQUAL name OR samples EQUAL 0 OR NOT error LESS_EQUAL limit)
    message(FATAL_ERROR "case ${i} of the JSON file: ${written}, ${samples} samples, error ${error} of at most "
                        "${limit}; expected ${name}, verified and timed")
  endif()
endforeach()
message(STATUS "${expected} cases verified on ${isa}")

if(PYTHON)
  execute_process(COMMAND ${PYTHON} -c "import matplotlib" RESULT_VARIABLE missing OUTPUT_QUIET ERROR_QUIET)
  if(NOT missing)
    execute_process(COMMAND ${PYTHON} ${CMAKE_CURRENT_LIST_DIR}/plot.py ${FOLDER}/smoke.json ${FOLDER}
                    COMMAND_ERROR_IS_FATAL ANY)
    foreach(plot time_per_token roofline)
      file(READ ${FOLDER}/${plot}.svg svg LIMIT 1000)
      if(NOT svg MATCHES "<svg")
        message(FATAL_ERROR "${plot}.svg is not an SVG file")
      endif()
    endforeach()
  endif()
endif()
