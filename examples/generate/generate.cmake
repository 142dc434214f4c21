# SPDX-License-Identifier: MIT
# What `generate` needs besides headwise: CLI11 and Eigen (nn.hpp), both header-only.
include(${PROJECT_SOURCE_DIR}/cmake/cli11.cmake)
target_link_libraries(generate PRIVATE headwise_cli11)
include(${PROJECT_SOURCE_DIR}/cmake/smollm2.cmake)
