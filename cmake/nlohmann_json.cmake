# SPDX-License-Identifier: MIT
# headwise_nlohmann_json: the headers of JSON for Modern C++, installed ones or fetched.
include_guard(GLOBAL)
add_library(headwise_nlohmann_json INTERFACE)
# As in cli11.cmake: a cross build may not look among the host's headers, and these are the same for every architecture.
find_path(HEADWISE_NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp NO_CMAKE_FIND_ROOT_PATH)
if(HEADWISE_NLOHMANN_JSON_INCLUDE_DIR)
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/nlohmann_json)
  file(CREATE_LINK ${HEADWISE_NLOHMANN_JSON_INCLUDE_DIR}/nlohmann ${PROJECT_BINARY_DIR}/nlohmann_json/nlohmann SYMBOLIC)
  target_include_directories(headwise_nlohmann_json SYSTEM INTERFACE ${PROJECT_BINARY_DIR}/nlohmann_json)
else()
  include(FetchContent)
  FetchContent_Declare(nlohmann_json URL https://github.com/nlohmann/json/archive/refs/tags/v3.11.2.tar.gz SYSTEM)
  FetchContent_MakeAvailable(nlohmann_json)
  target_link_libraries(headwise_nlohmann_json INTERFACE nlohmann_json::nlohmann_json)
endif()
