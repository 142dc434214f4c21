# SPDX-License-Identifier: MIT
# headwise_cli11: the headers of CLI11, installed ones or fetched.
include_guard(GLOBAL)
add_library(headwise_cli11 INTERFACE)
# A cross build may not look among the host's headers; these are the same for every architecture, so they are linked to
# from a folder that holds nothing else.
find_path(HEADWISE_CLI11_INCLUDE_DIR CLI/CLI.hpp NO_CMAKE_FIND_ROOT_PATH)
if(HEADWISE_CLI11_INCLUDE_DIR)
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/cli11)
  file(CREATE_LINK ${HEADWISE_CLI11_INCLUDE_DIR}/CLI ${PROJECT_BINARY_DIR}/cli11/CLI SYMBOLIC)
  target_include_directories(headwise_cli11 SYSTEM INTERFACE ${PROJECT_BINARY_DIR}/cli11)
else()
  include(FetchContent)
  set(CLI11_PRECOMPILED OFF)
  FetchContent_Declare(cli11 URL https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.2.tar.gz SYSTEM)
  FetchContent_MakeAvailable(cli11)
  target_link_libraries(headwise_cli11 INTERFACE CLI11::CLI11)
endif()
