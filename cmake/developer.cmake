# SPDX-License-Identifier: MIT
# What tests, examples and benchmarks share: warnings, and programs made from a folder.
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
include(${CMAKE_CURRENT_LIST_DIR}/smollm2.cmake)

add_library(headwise_developer INTERFACE)
target_compile_options(headwise_developer INTERFACE -Wall -Wextra -Wconversion -Wshadow)
target_compile_features(headwise_developer INTERFACE cxx_std_20)
target_link_libraries(headwise_developer INTERFACE headwise::compiled)
if(TARGET headwise::nn)
  target_link_libraries(headwise_developer INTERFACE headwise::nn)
endif()
target_compile_options(headwise_compiled PRIVATE -Wall -Wextra -Wconversion -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 sees copies that overlap in "text" + string (its bug 105651)
  target_compile_options(headwise_developer INTERFACE -Wno-restrict)
endif()

# Under sanitizers (presets without a build type) what the library is compared with need not be watched.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/reference.cpp PROPERTIES
                            COMPILE_OPTIONS "$<$<CONFIG:None>:-O2;-fno-sanitize=all>")
# What fuzzers learn from: which ways inputs take through the library and the models. Kernels have few, and run faster.
function(headwise_fuzzed target)
  if(HEADWISE_BUILD_FUZZERS)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()
if(HEADWISE_BUILD_FUZZERS)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/src/headwise.cpp PROPERTIES COMPILE_OPTIONS -fsanitize=fuzzer-no-link)
endif()

# headwise_programs(<out>): in the current folder, NAME.cpp and NAME/*.cpp together make the program NAME, which lies
# at NAME in the current build folder. <out> receives the names. A folder with a CMakeLists.txt builds itself.
function(headwise_programs out)
  file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} *.cpp */*.cpp)
  set(names "")
  foreach(source IN LISTS sources)
    string(REGEX REPLACE "(\\.cpp|/.*)$" "" name ${source})
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/CMakeLists.txt)
      continue()
    endif()
    list(APPEND names ${name})
    list(APPEND sources_of_${name} ${source})
    if(source MATCHES "/command_line\\.cpp$")  # CLI11 is a fifth less to compile, and runs once
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O1>)
    endif()
  endforeach()
  list(REMOVE_DUPLICATES names)
  foreach(name IN LISTS names)
    add_executable(${name} ${sources_of_${name}})
    target_link_libraries(${name} PRIVATE headwise_developer)
  endforeach()
  set(${out} ${names} PARENT_SCOPE)
endfunction()
