# SPDX-License-Identifier: MIT
# cmake -D PKG_CONFIG=… -D PKG_CONFIG_PATH=… -D CXX=… -D SOURCE=main.cpp -D WORK_DIR=… -P pkg_config.cmake
# Compiles and runs the program with no more than what pkg-config says, for both packages.
file(MAKE_DIRECTORY ${WORK_DIR})
set(ENV{PKG_CONFIG_PATH} ${PKG_CONFIG_PATH})
foreach(package headwise headwise-compiled)
  execute_process(COMMAND ${PKG_CONFIG} --cflags --libs ${package} OUTPUT_VARIABLE flags COMMAND_ERROR_IS_FATAL ANY
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  message(STATUS "${package}: ${flags}")
  separate_arguments(flags UNIX_COMMAND "${flags}")
  execute_process(COMMAND ${CXX} -std=c++20 ${SOURCE} -o ${WORK_DIR}/${package} ${flags} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${WORK_DIR}/${package} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
