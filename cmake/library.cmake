# SPDX-License-Identifier: MIT
# The three targets a user links:
#   headwise::headwise   the headers alone
#   headwise::compiled   the same headers with the kernels compiled once, for short compile times
#   headwise::nn         what <headwise/nn.hpp> needs besides: Eigen; only where Eigen is found
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 QUIET NO_MODULE)

set(include_dir ${PROJECT_SOURCE_DIR}/include)
file(GLOB_RECURSE headwise_headers CONFIGURE_DEPENDS ${include_dir}/headwise/*.hpp)

add_library(headwise INTERFACE)
add_library(headwise::headwise ALIAS headwise)
target_sources(headwise INTERFACE FILE_SET HEADERS BASE_DIRS ${include_dir} FILES ${headwise_headers})
target_compile_features(headwise INTERFACE cxx_std_20)
target_link_libraries(headwise INTERFACE Threads::Threads)

option(HEADWISE_CHECKED "Validate every index (core/checked.hpp); holds for the whole program" OFF)
if(HEADWISE_CHECKED)
  target_compile_definitions(headwise INTERFACE HEADWISE_CHECKED)
endif()

# Several files, so that cores share the work and a change compiles only what it touches.
set(compiled_sources headwise kernels_512 kernels_256 kernels_128 reference)  # the longest first
list(TRANSFORM compiled_sources REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/src/\\1.cpp")
add_library(headwise_compiled STATIC ${compiled_sources})
add_library(headwise::compiled ALIAS headwise_compiled)
target_compile_definitions(headwise_compiled INTERFACE HEADWISE_DECLARE_ONLY)
target_link_libraries(headwise_compiled PUBLIC headwise)
set_target_properties(headwise_compiled PROPERTIES EXPORT_NAME compiled OUTPUT_NAME headwise
                                                   POSITION_INDEPENDENT_CODE ON)
if(NOT HEADWISE_INSTALL AND NOT PROJECT_IS_TOP_LEVEL)
  set_target_properties(headwise_compiled PROPERTIES EXCLUDE_FROM_ALL ON)  # built only for those who link it
endif()

if(TARGET Eigen3::Eigen)
  add_library(headwise_nn INTERFACE)
  add_library(headwise::nn ALIAS headwise_nn)
  target_link_libraries(headwise_nn INTERFACE headwise Eigen3::Eigen)
endif()
