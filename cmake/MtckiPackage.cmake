# What goes along with an installed program: manual page and shell completions, which it prints itself, licence and
# configurations; and `cpack` in the build folder, an archive of what `cmake --install` installs.
function(mtcki_package program)
  include(GNUInstallDirs)
  foreach(_pair "man ${CMAKE_INSTALL_MANDIR}/man1/mtcki.1"
                "bash ${CMAKE_INSTALL_DATADIR}/bash-completion/completions/mtcki"
                "fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d/mtcki.fish")
    separate_arguments(_pair UNIX_COMMAND "${_pair}")
    list(GET _pair 0 _what)
    list(GET _pair 1 _file)
    get_filename_component(_folder ${_file} DIRECTORY)
    install(CODE "
      file(MAKE_DIRECTORY \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${_folder}\")
      execute_process(COMMAND \"$<TARGET_FILE:${program}>\" completion ${_what} RESULT_VARIABLE code
                      OUTPUT_FILE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${_file}\")
      if(code)
        message(WARNING \"${_file}: not made, the program does not run here\")
      endif()")
  endforeach()
  install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs DESTINATION ${CMAKE_INSTALL_DATADIR}/mtcki)
  set(CPACK_GENERATOR TGZ)
  set(CPACK_PACKAGE_FILE_NAME mtcki-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
  include(CPack)
endfunction()
