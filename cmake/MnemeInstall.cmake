# Install rules: find_package(mneme) gives mneme::mneme. Used from outside by tests/e2e (examples/find_package).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
install(TARGETS mneme EXPORT mnemeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/mneme DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mnemeTargets NAMESPACE mneme:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mneme)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/mnemeConfig.cmake.in ${CMAKE_BINARY_DIR}/mnemeConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mneme)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/mnemeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/mnemeConfig.cmake ${CMAKE_BINARY_DIR}/mnemeConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mneme)
if(TARGET mneme_mpi)
  install(TARGETS mneme_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/mneme)
endif()
if(TARGET mneme_cli)
  install(TARGETS mneme_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
