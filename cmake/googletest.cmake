# SPDX-License-Identifier: MIT
# GTest::gtest_main and GTest::gmock: installed ones; else built from installed sources (Debian ships them; a cross build
# needs that); else fetched.
set(HEADWISE_GTEST_SOURCE /usr/src/googletest CACHE PATH "GoogleTest's sources, used where no built one is found")
find_package(GTest QUIET)
if(TARGET GTest::gtest_main AND TARGET GTest::gmock)
  return()
endif()
set(INSTALL_GTEST OFF)
set(CMAKE_WARN_DEPRECATED OFF)  # its own cmake_minimum_required is old
if(EXISTS ${HEADWISE_GTEST_SOURCE}/CMakeLists.txt)
  add_subdirectory(${HEADWISE_GTEST_SOURCE} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL SYSTEM)
else()
  include(FetchContent)
  FetchContent_Declare(googletest URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz SYSTEM)
  FetchContent_MakeAvailable(googletest)
endif()
foreach(library gtest gtest_main gmock)
  if(NOT TARGET GTest::${library})
    add_library(GTest::${library} ALIAS ${library})
  endif()
endforeach()
