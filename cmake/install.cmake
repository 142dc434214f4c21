# SPDX-License-Identifier: MIT
# cmake --install: headers, the compiled library, the CMake package and two pkg-config files. All of it is relocatable.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

install(TARGETS headwise headwise_compiled EXPORT headwise-targets FILE_SET HEADERS)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/headwise)
install(EXPORT headwise-targets NAMESPACE headwise:: DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/headwise-config.cmake.in
                              ${PROJECT_BINARY_DIR}/headwise-config.cmake INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/headwise-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/headwise-config.cmake ${PROJECT_BINARY_DIR}/headwise-config-version.cmake
        DESTINATION ${package_dir})

set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(mode_flags "")
if(HEADWISE_CHECKED)
  set(mode_flags " -DHEADWISE_CHECKED")  # of the installed library, so of those who use it
endif()
file(RELATIVE_PATH prefix_from_pc /prefix/${pkgconfig_dir} /prefix)
string(REGEX REPLACE "/$" "" prefix_from_pc ${prefix_from_pc})
foreach(name headwise headwise-compiled)
  configure_file(${CMAKE_CURRENT_LIST_DIR}/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${pkgconfig_dir})
endforeach()

install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
