# SPDX-License-Identifier: Apache-2.0
# What `cmake --install FOLDER` puts where, and the Debian package: cpack --config FOLDER/CPackConfig.cmake
include(GNUInstallDirs)
find_program(GZIP gzip REQUIRED)

install(TARGETS lockstep RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# The jobs, MNIST with its licence and the small tokenizer; not what a user has downloaded beside it. A job finds its data by a path relative
# to itself, and makes its runs below the current folder.
file(GLOB jobs CONFIGURE_DEPENDS configs/*.yaml)
install(FILES ${jobs} DESTINATION ${CMAKE_INSTALL_DATADIR}/lockstep/configs)
install(DIRECTORY configs/data/mnist configs/data/clip_small DESTINATION ${CMAKE_INSTALL_DATADIR}/lockstep/configs/data)

install(FILES LICENSE NOTICE README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md THIRD_PARTY.md cmake/package/copyright
        DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} PATTERN "*.py" EXCLUDE)
# The pages' links lead to these.
install(DIRECTORY bench/results DESTINATION ${CMAKE_INSTALL_DOCDIR}/bench)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/links)
file(CREATE_LINK ../../lockstep/configs ${CMAKE_BINARY_DIR}/links/configs SYMBOLIC)
install(FILES ${CMAKE_BINARY_DIR}/links/configs DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The program itself writes its manual page and the shell's completion.
install(CODE "
  set(program \"$<TARGET_FILE:lockstep>\")
  execute_process(COMMAND \${program} man OUTPUT_FILE lockstep.1 WORKING_DIRECTORY \"${CMAKE_BINARY_DIR}\"
                  COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${GZIP} -9nf lockstep.1 WORKING_DIRECTORY \"${CMAKE_BINARY_DIR}\" COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND \${program} completion bash OUTPUT_FILE lockstep.bash WORKING_DIRECTORY \"${CMAKE_BINARY_DIR}\"
                  COMMAND_ERROR_IS_FATAL ANY)")
install(FILES ${CMAKE_BINARY_DIR}/lockstep.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${CMAKE_BINARY_DIR}/lockstep.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME lockstep)

# Without component `development` (cmake/embedding.cmake).
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};${PROJECT_NAME};Unspecified;/")
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME lockstep)
set(CPACK_PACKAGE_CONTACT "The Lockstep authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "train CNNs and diffusion UNets on many ranks")
set(CPACK_PACKAGE_DESCRIPTION
    "Lockstep trains convolutional networks and diffusion UNets on many ranks in lock step, from one YAML file, on CPUs or
GPUs. The package holds the program, jobs to start from, and MNIST (CC BY-SA 3.0).")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR})
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # the libraries, by dpkg-shlibdeps
set(CPACK_DEBIAN_PACKAGE_DEPENDS openmpi-bin)  # mpirun
include(CPack)
