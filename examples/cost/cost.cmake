# SPDX-License-Identifier: MIT
# What `cost` needs besides headwise: CLI11, header-only.
include(${PROJECT_SOURCE_DIR}/cmake/cli11.cmake)
target_link_libraries(cost PRIVATE headwise_cli11)
