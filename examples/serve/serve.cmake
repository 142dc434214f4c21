# SPDX-License-Identifier: MIT
# What `serve` needs besides headwise: the models of llama/, and CLI11 for its command line.
include(${PROJECT_SOURCE_DIR}/cmake/cli11.cmake)
target_link_libraries(serve PRIVATE headwise_cli11 headwise_llama)
